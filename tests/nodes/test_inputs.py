"""Every input of every node, walked from the schema: whatever is linked to it is refused in words, or worked with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, defaults, streams

pytestmark = needs_comfy

NAN, INF = float("nan"), float("inf")
SMALL = {"frames": 9, "width": 32, "height": 32, "overlap": 5, "steps": 1, "positions": "0", "measure": False}
SMALL |= {"prompt": "a cat", "negative_prompt": "", "scene": "a street", "name": "walk", "filename_prefix": "walk"}
SMALL |= {"lines": "", "speakers": "", "tile_size": 0}
NUMBERS = [None, NAN, INF, -INF, 1e300, -1e300, 2**31, -(2**31), 2**64, 10**5000, "7", "", True, [], {}, torch.ones(2)]
TEXTS = [None, 5, NAN, [], b"x", "\ud800", "\0", "&nbsp;", "\ufeff", "x" * 20000, "../../up", "a/../../b"]
BESIDE = [  # what may lie beside a prompt, and not so
    *(("strength", number) for number in (NAN, "1", None)),
    *(("start_percent", number) for number in (NAN, "0", None)),
    *(("concat_mask", mask) for mask in ("x", 5, torch.ones(2, 2), torch.ones(1, 4, 3, 6, 10, dtype=torch.complex64))),
    *((name, "x") for name in ("area", "mask", "control", "gligen", "hooks", "model_conds", "mova_audio_context")),
    *((name, None) for name in ("area", "mask", "control", "hooks")),
    ("concat_mask", torch.empty(1, 4, 3, 6, 10, device="meta")),
    ("mova_audio_steps", 1e300),
    ("cross_attn_controlnet", torch.ones(1, 3, 32)),
    ("pooled_output", torch.tensor([[NAN]])),
    (5, 6),
]
NOTHING = torch.zeros(1)  # shown as often as one likes
LONGEST = 1200  # characters of a message; more is no longer read


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def images() -> Iterator[Any]:
    good = pictures(9, 32, 32, 3)
    yield from (None, 3, "picture", [], {}, good[0], good[:0], good[..., :2], good[..., :0], good[:, :0], good[None])
    yield from (torch.cat((good, good), -1), good.where(good < 0.9, NAN), good.where(good < 0.9, INF), good * 255)
    yield from (
        good.double() * 1e300,
        good * 1e30,
        -good * 1e30,
        good > 0.5,
        (good * 255).long(),
        good.to(torch.complex64),
    )
    yield from (good[..., :1], torch.cat((good, good[..., :1]), -1), (good * 255).byte(), good.half(), good.double())
    yield from (
        (good * 65535).int().to(torch.uint16),
        good[:1],
        good[:2],
        good[:, :1, :1],
        good[:, :31, :31],
        good * 1.5 - 0.2,
    )
    yield from (good.to(torch.float8_e4m3fn), torch.empty(good.shape, device="meta"), good.to_sparse())
    yield from (
        NOTHING.expand(10**6, 512, 512, 3),
        NOTHING.expand(2**40, 16, 16, 3),
        good[:1].expand(9, -1, -1, -1),
    )


def sounds() -> Iterator[Any]:
    good = 0.1 * torch.randn(1, 1, 18000, generator=torch.Generator().manual_seed(0))
    yield from (None, 3, [], {}, {"waveform": good}, {"sample_rate": 48000}, {"waveform": None, "sample_rate": 48000})
    waves = [
        good[..., :0],
        good[:0],
        good[:, :0],
        good[0],
        good[0, 0],
        good[None],
        good.where(good < 0.2, NAN),
        good * INF,
    ]
    waves += [good.double() * 1e300, good * 1e30, good > 0, good.long(), good.to(torch.complex64), good.repeat(1, 3, 1)]
    waves += [
        good.repeat(1, 5, 1),
        good.repeat(1, 18000, 1)[..., :1],
        good.repeat(3, 1, 1),
        good[..., :1],
        good[..., :17999],
    ]
    waves += [torch.cat((good, good), -1), (good * 32767).short(), (good * 127).char(), (good * 127 + 128).byte()]
    waves += [good.half(), good.double(), good.repeat(1, 2, 1), good.repeat(1, 6, 1), good.repeat(1, 8, 1)]
    waves += [torch.empty(1, 1, 18000, device="meta"), good.to_sparse(), NOTHING.expand(1, 1, 2**31)]
    waves += [NOTHING.expand(1, 2, 2**40), good.mT]
    yield from ({"waveform": wave, "sample_rate": 48000} for wave in waves)
    rates = [
        None,
        0,
        -48000,
        NAN,
        INF,
        44100.5,
        "48000",
        2**31,
        1e300,
        True,
        7999,
        384001,
        47999,
        48000.0,
        44100,
        8000,
        10**5000,
    ]
    yield from ({"waveform": good, "sample_rate": rate} for rate in rates)


def latents(scene: Scene) -> Iterator[Any]:
    nested, (video, audio) = type(scene.latent["samples"]), streams(scene.latent)
    yield from (None, 3, [], {}, {"samples": None}, {"samples": "x"}, {"samples": video}, {"samples": video[:, :, 0]})
    pairs = [(audio, video), (video, audio[..., :0]), (video[:, :, :0], audio), (video[:0], audio[:0]), (video,)]
    pairs += [(video, audio, audio), (video.repeat(2, 1, 1, 1, 1), audio), (video[:, :8], audio), (video, audio[:, :3])]
    pairs += [(video.repeat(1, 3, 1, 1, 1), audio), (video + NAN, audio), (video, audio + INF), (video + 1e30, audio)]
    pairs += [(video.long(), audio), (video[..., :5], audio), (video[:, :, :2], audio), (video, audio[..., :10])]
    pairs += [(video, audio.repeat(1, 1, 2)), (video.half(), audio.half()), (video.double(), audio.double())]
    pairs += [
        (video, torch.empty_like(audio, device="meta")),
        (video.to_sparse(), audio),
        (video, NOTHING.expand(1, 8, 2**40)),
    ]
    pairs += [(video[:1].expand(10**5, -1, -1, -1, -1), audio[:1].expand(10**5, -1, -1))]
    yield from ({**scene.latent, "samples": nested(list(pair))} for pair in pairs)
    yield {"samples": SimpleNamespace(is_nested=True, tensors=[video, audio])}
    yield from ({**scene.latent, "audio_steps_per_second": rate} for rate in (NAN, "50", -1.0, 1e300))
    yield from ({**scene.latent, "frame_rate": rate} for rate in (None, 0, NAN, INF, -24.0, 1e300, "24", 24))
    masks = [3, "x", torch.full((1, 1, 48, 80), NAN), nested([video * NAN, audio]), torch.ones(1, 1, 48, 80)]
    masks += [
        torch.ones(()),
        nested([torch.ones(19), torch.ones(1, 1, 19)]),
        nested([NOTHING.expand(1, 1, 1, 1, 1)] * 3),
    ]
    yield from ({**scene.latent, "noise_mask": mask} for mask in masks)


def conditionings(scene: Scene) -> Iterator[Any]:
    text, values = scene.positive[0]
    yield from (None, 3, [], {}, "x", [[]], [[text]], [[text, None]], [["x", {}]], [[None, {}]], [[text * NAN, values]])
    yield from ([[text[..., :5], values]], [[text[0], values]], [[text.long(), values]], [[text[:, :0], values]])
    image = values["concat_latent_image"]
    for part in (
        None,
        "x",
        image * NAN,
        image[:, :8],
        image[:, :, :1],
        image[..., :4],
        image[0],
        image.repeat(3, 1, 1, 1, 1),
    ):
        yield [[text, {**values, "concat_latent_image": part}]]
    for rate in (None, 0, NAN, INF, 1e300, "24"):
        yield [[text, {**values, "frame_rate": rate}]]
    for words in (torch.empty(text.shape, device="meta"), text.to_sparse(), NOTHING.expand(1, 2**40, 32)):
        yield [[words, values]]
    yield from ([[text, {**values, name: part}]] for name, part in BESIDE)


def landmarks() -> Iterator[Any]:
    face = {"bbox_xyxy": [1, 2, 20, 22], "landmarks_xy": [[5, 6], [7, 8]]}
    good = {"frames": [[face]] * 9, "image_size": (32, 32), "connection_sets": {"lips": [(0, 1)]}}
    yield from (3, [], {}, good)
    yield from ({**good, "frames": part} for part in (None, 3, [], [None] * 9, [[None]] * 9, [["x"]] * 9, [[{}]] * 9))
    for other in ({"bbox_xyxy": [1, 2]}, {"bbox_xyxy": [NAN] * 4}, {"bbox_xyxy": [1e300] * 4}, {"landmarks_xy": []}):
        yield {**good, "frames": [[face | other]] * 9}
    yield from ({**good, "image_size": part} for part in (None, 3, (1, 2, 3), (NAN, 3), (64, 64)))
    yield from ({**good, "connection_sets": part} for part in (None, {}, {"lips": None}, {"lips": [(0, 999)]}))


def bad(stated: Any, scene: Scene) -> Iterator[Any]:
    """Values for one input that no widget would give, and some unusual ones that are right."""
    kind, name = stated.get_io_type(), stated.id
    if kind in ("INT", "FLOAT"):
        yield from NUMBERS
        yield from (stated.min - 1, stated.max + 1, stated.min - 1e-6, stated.max + 0.5, (stated.min + stated.max) / 3)
    elif kind == "STRING":
        yield from TEXTS
    elif kind == "COMBO":
        yield from (None, 3, NAN, "", "absent", "../x", "\0", [])
    elif kind == "BOOLEAN":
        yield from (None, "yes", 2, NAN)
    elif kind == "IMAGE":
        yield from images()
    elif kind == "AUDIO":
        yield from sounds()
    elif kind == "LATENT":
        yield from latents(scene)
    elif kind == "CONDITIONING":
        yield from conditionings(scene)
    elif kind == "VAE":
        flat = SimpleNamespace(decode=print, latent_channels=4, latent_dim=2)
        yield from (SimpleNamespace(decode=say, encode=say, latent_channels=16) for say in (print, repr, None, int))
        yield from (None, 3, "vae", flat, scene.vae if name == "audio_vae" else scene.audio_vae, scene.clip)
    elif kind == "CLIP":
        yield from (None, 3, "clip", SimpleNamespace(tokenizer=SimpleNamespace(clip_name="l")), scene.vae)
    elif kind == "MODEL":
        yield from (None, 3, "model", SimpleNamespace(model=torch.nn.Identity()), scene.vae, scene.clip)
    elif kind == "FACE_LANDMARKS":
        yield from landmarks()
    else:  # our own, and VIDEO
        yield from (None, 3, "x", [], [3], {}, object(), torch.ones(2), SimpleNamespace(), scene.latent)


def right(node: Any, scene: Scene) -> dict[str, Any]:
    """Required inputs that go through; widgets have their default, or a small value."""
    of_type = {"MODEL": scene.model, "CLIP": scene.clip, "VAE": scene.vae, "LATENT": scene.latent}
    of_type |= {"CONDITIONING": scene.positive, "IMAGE": pictures(9, 32, 32, 3)}
    of_type |= {"AUDIO": {"waveform": pictures(1, 1, 18000) - 0.5, "sample_rate": 48000}}
    values = defaults(node)
    for stated in node.define_schema().inputs:
        if stated.id in SMALL:
            values[stated.id] = SMALL[stated.id]
        elif stated.id == "audio_vae" and not stated.optional:
            values[stated.id] = scene.audio_vae
        elif not stated.optional and stated.get_io_type() in of_type:
            values[stated.id] = of_type[stated.get_io_type()]
    if "images" in values and "positions" in values:
        values["images"] = values["images"][:1]
    return values


def finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, float):
        return math.isfinite(value)
    if getattr(value, "is_nested", False):
        return all(map(finite, value.unbind()))
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, list | tuple) else True


def wrong(run: Run, pack: Pack, scene: Scene, node_id: str) -> tuple[int, list[str]]:
    """How many inputs were tried on a node, and what came of those that went wrong."""
    ours, node, found, tried = pack.module("mova_core.errors").MovaError, pack.nodes[node_id], [], 0
    valid = right(node, scene)
    for stated in node.define_schema().inputs:
        for number, value in enumerate(bad(stated, scene)):
            tried += 1
            what = f"{stated.id}, case {number} ({type(value).__name__!s})"
            try:
                outputs = run(node_id, **(valid | {stated.id: value}))
            except ours as refusal:
                text = str(refusal)
                if not 20 <= len(text) <= LONGEST or text.startswith("/"):
                    found.append(f"{what}: a message of {len(text)} characters: {text[:60]}")
            except Exception as error:  # noqa: BLE001, whatever it is, it is the fault looked for
                found.append(f"{what}: {type(error).__name__}: {str(error)[:120]}")
            else:
                if not finite(list(outputs)):
                    found.append(f"{what}: NaN in silence")
    return tried, found


@pytest.fixture(scope="module", autouse=True)
def _a_part_to_read(run: Run, scene: Scene) -> None:
    sound = {"waveform": torch.zeros(1, 1, 18000), "sample_rate": 48000}
    for index in range(2):
        run("MOVASaveSegment", images=pictures(9, 32, 32, 3), audio=sound, fps=24.0, name="walk", index=index)


def test_whatever_is_linked_to_a_node_is_refused_in_words_or_worked_with(
    run: Run, pack: Pack, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")
    total, found = 0, {}
    with torch.inference_mode():
        for node_id in sorted(pack.nodes):
            tried, faults = wrong(run, pack, scene, node_id)
            total += tried
            found |= {node_id: faults} if faults else {}
    assert not found, "\n".join(f"{node}: {fault}" for node, faults in found.items() for fault in faults)
    assert total > 1500


def test_every_node_checks_what_comes_in(pack: Pack) -> None:
    base = pack.module("nodes.base").MovaNode
    for node_id, node in pack.nodes.items():
        assert issubclass(node, base), f"{node_id} is no MovaNode: what is linked to it would come in unchecked"
        assert "execute" not in vars(node), (
            f"{node_id} has an execute of its own; it is `run` that works on checked values"
        )
