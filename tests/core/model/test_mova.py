"""The joint forward pass: laws on a tiny model, and the numbers of the official code."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mova_core.checkpoint.load import load_joint
from mova_core.config import MOVA, MovaConfig
from mova_core.errors import ShapeError
from mova_core.model.mova import Mova
from mova_core.ops import Place, RotaryPairs, Runtime, row_slices, sdpa
from tests.fixtures.tiny_model import FPS, TINY, WEIGHTS, tiny_config, tiny_inputs, tiny_model, wave
from tests.golden import CHECKPOINT, LARGER, larger, relative_error, tensors

SITES = ("video.self", "video.text", "audio.self", "audio.text", "bridge.audio_to_video", "bridge.video_to_audio")


@pytest.fixture(scope="module")
def model() -> Mova:
    return tiny_model()


def errors(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> tuple[float, float]:
    return relative_error(ours[0], theirs[0]), relative_error(ours[1], theirs[1])


# towers and bridge


def test_without_the_bridge_neither_tower_can_change_the_other(model):
    cut, inputs = Runtime(audio_to_video=0.0, video_to_audio=0.0), tiny_inputs()
    quiet = inputs.run(model, runtime=cut)
    louder = replace(inputs, audio=2 * inputs.audio, audio_timestep=inputs.audio_timestep + 9)
    brighter = replace(inputs, video=2 * inputs.video, condition=-inputs.condition, fps=8.0)
    assert torch.equal(louder.run(model, runtime=cut)[0], quiet[0])
    assert torch.equal(brighter.run(model, runtime=cut)[1], quiet[1])


@pytest.mark.parametrize("cut", ["audio_to_video", "video_to_audio"])
def test_strength_zero_is_a_bridge_of_silenced_weights(model, cut):
    silenced = tiny_model()
    for name, weight in silenced.named_parameters():
        if f"{cut}_conditioners" in name and ".inner.o." in name:
            weight.zero_()
    ours, wanted = tiny_inputs().run(model, runtime=Runtime(**{cut: 0.0})), tiny_inputs().run(silenced)
    assert torch.equal(ours[0], wanted[0])
    assert torch.equal(ours[1], wanted[1])
    assert min(errors(ours, tiny_inputs().run(model))) > 1e-3  # through the other direction, both notice


def test_each_direction_of_the_bridge_reaches_its_tower_first():
    model = tiny_model(TINY)
    model.dual_tower_bridge.config = replace(TINY.bridge, layers=1)  # a second layer would send the change back
    model.blocks = model.blocks[:1]
    model.audio_dit.config = replace(TINY.audio, layers=1)
    full = tiny_inputs().run(model)
    deaf = tiny_inputs().run(model, runtime=Runtime(audio_to_video=0.5))
    assert relative_error(deaf[0], full[0]) > 1e-3
    assert torch.equal(deaf[1], full[1])  # both directions read the states from before the bridge


def test_the_audio_context_reaches_only_the_audio_tower(model):
    inputs, cut = tiny_inputs(), Runtime(audio_to_video=0.0, video_to_audio=0.0)
    other = wave(inputs.context.shape, 9)
    split = inputs.run(model, audio_context=other, runtime=cut)
    assert torch.equal(split[0], inputs.run(model, runtime=cut)[0])
    assert torch.equal(split[1], replace(inputs, context=other).run(model, runtime=cut)[1])
    assert torch.equal(inputs.run(model, audio_context=inputs.context)[1], inputs.run(model)[1])


def test_everything_said_to_the_model_is_heard(model):
    inputs, plain = tiny_inputs(), tiny_inputs().run(model)
    for name in ("video", "audio", "context", "video_timestep", "audio_timestep", "condition"):
        changed = replace(inputs, **{name: 1.1 * getattr(inputs, name)})
        assert min(errors(changed.run(model), plain)) > 1e-5, name
    assert min(errors(replace(inputs, fps=12.0).run(model), plain)) > 1e-5
    assert min(errors(inputs.run(model, runtime=Runtime(rope_scale=(1.5, 1.0, 1.0))), plain)) > 1e-5


def test_every_weight_matters():
    model = tiny_model(tiny_config(video_layers=2, audio_layers=1))
    plain = tiny_inputs().run(model)
    for name, weight in model.named_parameters():
        kept = weight.clone()
        weight.mul_(1.5)
        assert max(errors(tiny_inputs().run(model), plain)) > 1e-5, name
        weight.copy_(kept)


# batches


def test_a_batch_is_its_samples_each_at_its_own_timestep(model):
    batch = tiny_inputs(batch=3)
    together, alone = batch.run(model), [batch.rows(n).run(model) for n in range(3)]
    for n in range(3):
        assert max(errors((together[0][n : n + 1], together[1][n : n + 1]), alone[n])) < 2e-6


def test_permuting_a_batch_permutes_its_velocities(model):
    batch = tiny_inputs(batch=3)
    video, audio = batch.run(model)
    assert max(errors(batch.rows(2, 0, 1).run(model), (video[[2, 0, 1]], audio[[2, 0, 1]]))) < 2e-6


@pytest.mark.parametrize("rows", [1, 2, 513])
def test_a_context_may_have_any_number_of_rows(model, rows):
    video, audio = tiny_inputs(rows=rows).run(model)
    assert torch.isfinite(video).all()
    assert torch.isfinite(audio).all()


# how it runs


@pytest.mark.parametrize("rows", [1, 5, 18, 1000])
def test_chunks_change_rounding_only(model, rows):
    plain = tiny_inputs(batch=2).run(model)
    assert max(errors(tiny_inputs(batch=2).run(model, runtime=Runtime(ffn_rows=rows)), plain)) < 2e-6
    assert max(errors(tiny_inputs(batch=2).run(model, runtime=Runtime(query_rows=rows)), plain)) < 2e-6


def test_slices_cover_every_row_once():
    assert [list(range(9))[s] for s in row_slices(9, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert list(row_slices(9, None)) == [slice(0, 9)]


def test_the_given_attention_answers_at_every_site(model):
    seen: Counter[tuple[str, int]] = Counter()

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, site: str, place: Place | None = None) -> Tensor:
        seen[site, heads] += 1
        assert q.shape[::2] == (1, {4: 48, 2: 24}[heads])
        assert k.shape == v.shape
        return sdpa(q, k, v, heads, site)

    assert torch.equal(tiny_inputs().run(model, runtime=Runtime(attention=attention))[0], tiny_inputs().run(model)[0])
    video, audio = TINY.video.layers, TINY.audio.layers
    assert seen == dict(
        zip([(s, 2 if s in SITES[2:4] or s == SITES[5] else 4) for s in SITES], [video] * 2 + [audio] * 4)
    )


def test_the_given_rotary_embedding_makes_both_tables_and_turns_every_token(model):
    class Counting(RotaryPairs):
        tables: list[tuple[int, ...]] = []
        turned: Counter[int] = Counter()

        def table(self, cos: Tensor, sin: Tensor) -> Tensor:
            self.tables.append(tuple(cos.shape))
            return super().table(cos, sin)

        def rotate(self, x: Tensor, table: Tensor, start: int) -> Tensor:
            self.turned[len(table)] += x.shape[1]
            return super().rotate(x, table, start)

    rotary = Counting()
    tiny_inputs().run(model, runtime=Runtime(rotary=rotary, query_rows=5))
    assert rotary.tables == [(18, 6), (11, 6)]
    assert rotary.turned == {18: 2 * 3 * 18, 11: 2 * 2 * 11}  # queries and keys of every layer


def test_prefetch_is_stepped_before_each_layer_with_what_will_run_and_once_after(model):
    log: list[object] = []

    def prefetch(layers):
        for number, modules in enumerate(layers):
            log.append(("layer", number, set(modules)))
            yield
        log.append("end")
        yield

    parts = [m for layer in model.layer_modules() for m in layer]
    ends = {part.inner.o if hasattr(part, "inner") else part: part for part in parts}  # what runs last in each
    hooks = [end.register_forward_hook(lambda module, args, out: log.append(ends[module])) for end in ends]
    tiny_inputs().run(model, runtime=Runtime(prefetch=prefetch))
    for hook in hooks:
        hook.remove()

    promised: list[set[nn.Module]] = []
    ran: list[set[nn.Module]] = []
    for entry in log[:-1]:
        if isinstance(entry, tuple):
            promised.append(entry[2])
            ran.append(set())
        else:
            assert entry not in ran[-1]
            ran[-1].add(entry)
    assert log[-1] == "end"
    assert ran == promised
    assert len(ran) == TINY.video.layers
    assert {p for part in parts for p in part.parameters()} == {
        p for name, p in model.named_parameters() if "blocks." in name or "conditioners." in name
    }


def test_the_given_layer_call_surrounds_every_layer_in_order(model):
    seen = []

    def layer(index, run, video, audio):
        seen.append((index, video.shape, audio.shape))
        return run(video, audio)

    assert torch.equal(tiny_inputs().run(model, runtime=Runtime(layer=layer))[1], tiny_inputs().run(model)[1])
    assert seen == [(n, (1, 18, 48), (1, 11, 24)) for n in range(3)]


def test_inputs_are_left_as_they_were(model):
    for dtype in (torch.float32, torch.bfloat16):
        inputs = tiny_inputs(batch=2)
        inputs = replace(
            inputs, **{k: getattr(inputs, k).to(dtype) for k in ("video", "audio", "context", "condition")}
        )
        kept = {k: v.clone() for k, v in vars(inputs).items() if isinstance(v, Tensor)}
        inputs.run(model)
        assert all(torch.equal(v, getattr(inputs, k)) for k, v in kept.items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"video": torch.zeros(1, 4, 3, 5, 6)}, "multiples of 16"),
        ({"video": torch.zeros(1, 5, 3, 4, 6)}, r"wanted \(batch, 4,"),
        ({"audio": torch.zeros(1, 7, 11)}, r"audio latents has shape \(1, 7, 11\)"),
        ({"audio": torch.zeros(2, 6, 11)}, "audio latents"),
        ({"context": torch.zeros(1, 7, 21)}, "context"),
        ({"condition": torch.zeros(1, 8, 2, 4, 6)}, "condition"),
        ({"fps": 0.0}, "trained at 24"),
        ({"fps": float("nan")}, "trained at 24"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model, changes, says):
    with pytest.raises(ShapeError, match=says):
        replace(tiny_inputs(), **changes).run(model)


# precision and memory


def test_time_is_embedded_in_float32_under_a_bfloat16_model():
    model, seen = tiny_model(dtype=torch.bfloat16), []
    for tower in (model, model.audio_dit):
        for part in (tower.time_embedding, tower.time_projection):
            for module in part:
                module.register_forward_hook(lambda module, args, out: seen.append((args[0].dtype, out.dtype)))
        tower.blocks[0].register_forward_pre_hook(lambda module, args: seen.append((args[1].dtype, torch.float32)))
    inputs = replace(tiny_inputs(), context=tiny_inputs().context.bfloat16())
    video, audio = inputs.run(model)
    assert seen == [(torch.float32, torch.float32)] * (2 * 5 + 2)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (video.dtype, audio.dtype) == (torch.float32, torch.float32)


def test_a_bfloat16_model_agrees_with_its_weights_in_float32():
    low, wide = tiny_model(dtype=torch.bfloat16), tiny_model(dtype=torch.bfloat16).float()
    inputs = tiny_inputs()
    assert max(errors(inputs.run(low), inputs.run(wide))) == 0  # a float32 context means float32 arithmetic
    half = replace(inputs, context=inputs.context.bfloat16())
    assert max(errors(half.run(low), inputs.run(wide))) < 3e-2


class Wide(TorchDispatchMode):
    """The float64 and complex128 tensors made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, Tensor) and tensor.dtype in (torch.float64, torch.complex128):
                self.made.append(tensor)
        return out


def test_eight_seconds_of_720p_need_no_float64_of_token_length():
    sizes = MovaConfig(
        video=replace(MOVA.video, layers=1), audio=replace(MOVA.audio, layers=1), bridge=replace(MOVA.bridge, layers=1)
    )
    model = Mova(sizes, device="meta", dtype=torch.bfloat16)
    grid, meta = (49, 90, 160), {"device": "meta"}
    runtime = Runtime(attention=lambda q, k, v, heads, site, place=None: torch.empty_like(q), ffn_rows=8192)
    with torch.no_grad(), Wide() as wide:
        video, audio = model(
            torch.empty(1, 16, *grid, **meta),
            torch.empty(1, 128, 403, **meta),
            torch.empty(1, 512, 4096, dtype=torch.bfloat16, **meta),
            torch.empty(1, **meta),
            torch.empty(1, **meta),
            condition=torch.empty(1, 20, *grid, **meta),
            fps=FPS,
            runtime=runtime,
        )
    assert (video.shape, audio.shape) == ((1, 16, *grid), (1, 128, 403))
    assert wide.made  # the counter does count: tables are float64 along each axis
    assert max(tensor.nbytes for tensor in wide.made) < 2**20
    assert max(max(tensor.shape, default=0) for tensor in wide.made) < 49 * 45 * 80 / 100


# the official code


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Loader of the golden weights, through a folder in the published layout; each style is written once."""
    folders = {}

    def load(style: str, dtype: torch.dtype = torch.float32) -> Mova:
        if style == "hd32":
            return load_joint(CHECKPOINT, dtype=dtype)
        if style not in folders:
            folders[style] = folder = tmp_path_factory.mktemp(style)
            for part, component in (("video", "video_dit"), ("audio", "audio_dit"), ("bridge", "dual_tower_bridge")):
                weights, header = tensors(f"a_{style}_weights_{part}")
                for name in (component, "video_dit_2") if part == "video" else (component,):
                    (folder / name).mkdir()
                    bare = {key.removeprefix(f"{component}."): tensor for key, tensor in weights.items()}
                    save_file(bare, folder / name / WEIGHTS)
                    (folder / name / "config.json").write_text(json.dumps(header[component]))
        return load_joint(folders[style], dtype=dtype)

    return load


def case(name: str, part: str = "", dtype: torch.dtype = torch.float32) -> tuple[dict, dict[str, Tensor]]:
    """Arguments of a forward, and everything else, of one golden case."""
    data = {k.removeprefix(part): v for k, v in tensors(f"a_{name}")[0].items() if k.startswith(part)}
    latents, condition = data["in.visual_latents"].split([16, 20], dim=1)
    arguments = {
        "video_latents": latents,
        "audio_latents": data["in.audio_latents"],
        "context": data["in.context"].to(dtype),
        "video_timestep": data["in.timestep"],
        "audio_timestep": data["in.audio_timestep"],
        "condition": condition,
        "fps": data["in.fps"].item(),
    }
    return arguments, data


FORWARDS = ("base", "difft", "fps16", "fpsfrac", "single")
CASES = [(f"hd32_{name}", "") for name in FORWARDS] + [("hd32_batch2", "diff/")]
CASES += [larger(f"main_{name}", "") for name in FORWARDS]
CASES += [larger("main_batch2", part) for part in ("same/", "diff/")]


@pytest.mark.parametrize(("name", "part"), CASES)
def test_velocities_are_those_of_the_official_code(official, name, part):
    arguments, data = case(name, part)
    with torch.no_grad():
        ours = official(name.split("_")[0])(**arguments)
    found = errors(ours, (data["out.video"], data["out.audio"]))
    assert max(found) < 5e-6
    for velocity, name in zip(ours, ("video", "audio")):
        assert (velocity - data[f"out.{name}"]).abs().max() < 2e-5


@pytest.mark.parametrize("style", ["hd32", larger("main")])
def test_bfloat16_is_as_near_to_float32_as_the_official_code(official, style):
    arguments, data = case(f"{style}_bf16", dtype=torch.bfloat16)
    with torch.no_grad():
        ours = official(style, torch.bfloat16)(**arguments)
    for velocity, name in zip(ours, ("video", "audio")):
        theirs, exact = data[f"out.{name}"], data[f"fp32.out.{name}"]
        found = relative_error(velocity, theirs), relative_error(velocity, exact), relative_error(theirs, exact)
        assert found[0] < 2e-2
        assert found[1] < 1.5 * found[2]


@pytest.mark.parametrize("style", ["hd32", larger("main")])
def test_hidden_states_before_every_layer_are_those_of_the_official_code(official, style):
    arguments, data = case(f"{style}_base")
    states = []

    def layer(index, run, video, audio):
        states.append((video.clone(), audio.clone()))
        return run(video, audio)

    with torch.no_grad():
        official(style)(**arguments, runtime=Runtime(layer=layer))
    video, audio = states[0]
    assert max(relative_error(video, data["p.video.patchify"]), relative_error(audio, data["p.audio.patchify"])) < 5e-6
    for index, (video, audio) in enumerate(states[1:]):
        assert relative_error(video, data[f"p.video.block{index}"]) < 5e-6
        assert relative_error(audio, data[f"p.audio.block{index}"]) < 5e-6


def test_the_golden_files_are_all_checked():
    named = {values[0] for values in (getattr(case, "values", case) for case in CASES)} | {"hd32_bf16", "main_bf16"}
    for folder, own in ((CHECKPOINT.parent, "hd32"), (LARGER, "main")):
        found = {path.stem[2:] for path in folder.glob(f"a_{own}_*.safetensors") if "weights" not in path.stem}
        assert found == {name for name in named if name.startswith(own)} or (folder == LARGER and not found)
