"""Memory on the path that ComfyUI runs, which path is taken, and what ComfyUI is told."""

from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import pytest
import torch

from benchmarks.comfy_path import account_host, decoding_peak, in_chunks, sound_decoding_peak
from benchmarks.peak import FRAMES, GIB, SIZE_360P, SIZE_720P, Clip, Ledger, at_depth, few_layers
from mova_core.config import MOVA
from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, equal, error

pytestmark = needs_comfy

SIZES = {"360p": SIZE_360P, "720p": SIZE_720P}
PATHS: dict[str, tuple[int | None, int | None]] = {"normal": (16384, None), "low": (8192, 8192)}


@pytest.fixture(scope="module")
def books(pack: Pack) -> Any:
    """books("360p", "low"): the ledger of one forward at the published width."""

    @cache
    def counted(size: str, path: str, sage: bool = False, layers: tuple[int, int] = (1, 1)) -> Ledger:
        height, width = SIZES[size]
        clip = Clip(height=height, width=width, frames=FRAMES)
        return account_host(pack, clip, few_layers(*layers), in_chunks(pack, *PATHS[path]), sage=sage)

    return counted


@pytest.mark.parametrize(
    ("size", "path", "limit"),
    [("360p", "normal", 2.3), ("720p", "normal", 9.0), ("360p", "low", 1.9), ("720p", "low", 6.0)],
)
def test_the_peak_of_comfyuis_path_stays_within_its_limit(books: Any, size: str, path: str, limit: float) -> None:
    assert limit / 2 < books(size, path).peak / GIB <= limit


@pytest.mark.parametrize("path", PATHS)
def test_rotary_tables_are_small_and_nothing_large_is_double(books: Any, path: str) -> None:
    ledger = books("720p", path)
    assert ledger.largest[torch.float64] <= 2**20
    assert sum(e.bytes for e in ledger.at_peak if e.made_by == "stack") <= 0.20 * GIB


@pytest.mark.parametrize("path", PATHS)
def test_comfyuis_path_computes_nothing_twice(books: Any, path: str) -> None:
    def flops(config: Any) -> float:
        return books(
            "360p", path, False, (config.bridge.layers, config.video.layers - config.bridge.layers)
        ).matrix_flops

    assert at_depth(flops) / 1e12 == pytest.approx(1211.174, abs=0.001)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sage", [False, True])
def test_comfyui_is_told_what_the_path_needs(
    pack: Pack, books: Any, monkeypatch: pytest.MonkeyPatch, size: str, path: str, sage: bool
) -> None:
    """Activations within 15 % of the count, and two layers of weights on their way."""
    model, memory = full_size(pack), pack.module("nodes.host.model.memory")
    estimate = pack.module("mova_core.estimate")
    monkeypatch.setattr("comfy.model_management.sage_attention_enabled", lambda: sage)
    model.rows = memory.MEMORY_MODES[path]
    height, width = SIZES[size]
    values = 16 * 49 * (height // 8) * (width // 8) + 128 * 403
    told = model.memory_required([1, 1, values])
    streamed = 2 * model.layer_bytes
    assert 2 * 0.95e9 < streamed < 2 * 1.0e9  # 703 + 93 + 177 MB
    assert (told - streamed) / estimate.MARGIN == pytest.approx(books(size, path, sage).peak, rel=0.15)


def full_size(pack: Pack) -> Any:
    """A MovaModel of the published size without weights."""
    host, config = pack.module("nodes.host.model.base_model"), pack.module("mova_core.config")
    settings = host.MovaSettings(config.MOVA, config.MOVA_SCHEDULER)
    settings.set_inference_dtype(torch.bfloat16, None)
    return host.MovaModel(settings, device=torch.device("meta"))


# Which path


def plan(pack: Pack, model: Any, noise: list[int], free: float, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Rows in the run's options after planning with `free` bytes."""
    memory = pack.module("nodes.host.model.memory")
    monkeypatch.setattr(memory, "capacity", lambda device: free)
    run: dict[str, Any] = {"transformer_options": dict(options)}
    memory.plan(lambda *a, **k: None, model, noise, {}, run)
    chosen = pack.module("nodes.host.keys").run_options(run["transformer_options"]).chunks
    return chosen.feed_forward, chosen.queries


class Patcher:
    """As much of a ModelPatcher as planning asks."""

    load_device = torch.device("cpu")

    def __init__(self, model: Any) -> None:
        self.model = model

    def get_additional_models(self) -> list[Any]:
        return []

    def get_additional_models_with_key(self, key: str) -> list[Any]:
        return []

    def preparing(self) -> Any:
        return nullcontext()


NOISE = [1, 1, 16 * 49 * 90 * 160 + 128 * 403]  # 193 frames of 1280x720


@pytest.mark.parametrize(("gigabytes", "queries"), [(24, None), (12.5, None), (11, 8192), (8, 8192)])
def test_the_low_path_is_taken_where_the_normal_one_does_not_fit(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, gigabytes: float, queries: int | None
) -> None:
    model = full_size(pack)
    assert plan(pack, Patcher(model), NOISE, gigabytes * 1e9, monkeypatch)[1] == queries
    assert model.rows.queries == queries


@pytest.mark.parametrize("rows", [(8192, 8192), (16384, None), (100, None)])
def test_the_user_decides_where_he_wants_to(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, int | None]
) -> None:
    model, options = full_size(pack), in_chunks(pack, *rows)
    for gigabytes in (4, 80):
        assert plan(pack, Patcher(model), NOISE, gigabytes * 1e9, monkeypatch, **options) == rows
        assert (model.rows.feed_forward, model.rows.queries) == rows


def test_capacity_counts_what_comfyui_can_move_away(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import model_management

    class Loaded:
        device, model = torch.device("cuda", 0), object()

        def model_loaded_memory(self) -> int:
            return 5_000_000_000

    monkeypatch.setattr(model_management, "get_free_memory", lambda device: 3e9)
    monkeypatch.setattr(model_management, "current_loaded_models", [Loaded()])
    capacity = partial(pack.module("nodes.host.model.memory").capacity)
    reserved = model_management.extra_reserved_memory()
    assert capacity(torch.device("cuda", 0)) == 8e9 - reserved
    assert capacity(torch.device("cpu")) == 3e9 - reserved


def test_the_low_path_gives_the_same_clip(run: Run, pack: Pack, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled through the node, in chunks smaller than the clip, with both experts told."""
    estimate, memory = pack.module("mova_core.estimate"), pack.module("nodes.host.model.memory")
    monkeypatch.setitem(memory.MEMORY_MODES, "low", estimate.ChunkSizes(feed_forward=7, queries=8))
    settings = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "steps": 3, "seed": 5}
    low = run("MOVAMemory", model=scene.model, mode="low")[0]
    clips = [run("MOVASampler", model=model, **settings)[0] for model in (scene.model, low)]
    assert {low.model.rows, low.low.model.rows} == {memory.MEMORY_MODES["low"]}
    assert not equal(*clips)  # another shape of matrix products rounds differently: the chunks were used
    assert error(*clips) < 1e-5
    back = run("MOVAMemory", model=low, mode="auto")[0]
    assert equal(run("MOVASampler", model=back, **settings)[0], clips[0])


def test_another_model_is_refused(run: Run, pack: Pack) -> None:
    class Other:
        model = object()

    with pytest.raises(pack.module("mova_core.errors").MovaError, match="not MOVA"):
        run("MOVAMemory", model=Other(), mode="low")


def test_published_sizes_are_the_packs_own(pack: Pack) -> None:
    """The benchmarks' configuration and the pack's are two imports of one file."""
    assert vars(pack.module("mova_core.config").MOVA.video) == vars(MOVA.video)


# Decoding


@pytest.mark.parametrize(
    ("height", "width", "limit"), [(90, 160, 8.0), (32, 32, 1.0)], ids=["720p whole", "a tile of 256 pixels"]
)
def test_pictures_decode_whole_in_24_gb_and_in_tiles_in_8(pack: Pack, height: int, width: int, limit: float) -> None:
    """193 frames, from the line on which shorter clips lie; what convolutions take for themselves is not seen."""
    short, middle, long = (decoding_peak(height, width, steps) for steps in (3, 5, 7))
    assert long - middle == pytest.approx(middle - short, rel=0.01)
    whole = long + (long - middle) * ((FRAMES + 3) // 4 - 7) / 2
    assert limit / 3 < whole / GIB < limit


def test_sound_always_decodes(pack: Pack) -> None:
    assert sound_decoding_peak(403) / GIB < 0.6
