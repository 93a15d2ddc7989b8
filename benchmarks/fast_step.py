"""Account for one step of 'MOVA Fast Sampler' at full size, without the memory: python -m benchmarks.fast_step.

A forward of the picture, a teacher's where there is one, and the sound's own steps with two streams. What the sound
asks of the video is kept in eight bits between them, on the device or in host memory, whence it comes a layer ahead of
its use (nodes/host/model/bridge_cache.py does so). Over the bus go the weights of layers, were all of them streamed,
and what is kept; those of the sound stay from one of its steps to the next where the picture's activations were
(nodes/host/model/staying_weights.py).

Not seen: the patched copies of a layer's weights that a LoRA beside a teacher makes, and what benchmarks/peak.py names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from benchmarks.peak import GIB, SIZE_360P, SIZE_720P, Clip, Ledger, ungraded
from mova_core.config import MOVA, MovaConfig
from mova_core.estimate import FULL, ChunkSizes, Workload, sound_room
from mova_core.model.audio_only import audio_layers, audio_velocity, staying
from mova_core.model.compact import Compact, compacted
from mova_core.model.mova import Mova
from mova_core.model.teacher import States, collect, with_states_kept
from mova_core.ops import KeysValues, Runtime
from mova_core.sampling.fast import QUALITIES, recipe_of
from mova_core.shapes import DEFAULT_FPS, VideoShape, video_tokens

GB = 1e9
STREAMS = 2  # of the sound: its prompt, and the negative one


class Kept(Mapping[int, KeysValues]):
    """Keys and values by layer, on the device or away. `sent` and `fetched`: bytes that went over the bus."""

    def __init__(self, on_device: bool) -> None:
        self.on_device = on_device
        self.layers: dict[int, tuple[Compact, ...]] = {}
        self.away: dict[int, list[tuple[torch.Size, Tensor | None]]] = {}
        self.coming: dict[int, tuple[Compact, ...]] = {}
        self.sent = self.fetched = 0

    def put(self, layer: int, pair: KeysValues | None) -> None:
        if pair is None:
            return
        small = tuple(compacted(part) for part in pair)
        if self.on_device:
            self.layers[layer] = small
        else:
            self.away[layer] = [(part.values.shape, part.scale) for part in small]
            self.sent += sum(part.nbytes for part in small)

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers if self.on_device else self.away)

    def __len__(self) -> int:
        return len(self.layers if self.on_device else self.away)

    def __getitem__(self, layer: int) -> KeysValues:
        if self.on_device:
            here = self.layers[layer]
        else:
            for each in (layer, layer + 1):
                self._send_for(each)
            here = self.coming.pop(layer)
        keys, values = (part.expanded(torch.bfloat16) for part in here)
        return keys, values

    def _send_for(self, layer: int) -> None:
        if layer in self.coming or layer not in self.away:
            return
        made = (torch.empty(shape, dtype=torch.float8_e4m3fn, device="meta") for shape, _ in self.away[layer])
        self.coming[layer] = tuple(
            Compact(values, scale) for values, (_, scale) in zip(made, self.away[layer], strict=True)
        )
        self.fetched += sum(part.nbytes for part in self.coming[layer])


@dataclass
class FastStep:
    """The books of a step: `weights` are bytes of the layers each part went through, `peaks` bytes on the device."""

    kept: Kept
    weights: dict[str, int] = field(default_factory=dict)
    stay: int = 0  # bytes of the sound's weights that stay from one of its steps to the next
    peaks: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        return max(self.peaks.values())


def account_fast_step(
    clip: Clip, config: MovaConfig, quality: str, on_device: bool, rows: ChunkSizes = FULL
) -> FastStep:
    """A step by the recipe of `quality`, in bf16, after the first, which is guided."""
    recipe, step = recipe_of(quality, 8), FastStep(Kept(on_device))
    with ungraded():
        model = Mova(config, device="meta", dtype=torch.bfloat16).requires_grad_(False)
        given = clip.inputs(config, torch.bfloat16)
        ledger = Ledger()
        ledger.exclude(model)
        for name, tensor in given.items():
            ledger.enter(tensor, name)
        run = Runtime(attention=ledger.attention, ffn_rows=rows.feed_forward, query_rows=rows.queries)
        states: list[States] = []
        with ledger:
            picture = _counted(step, "picture", run)
            start = recipe.teacher
            if start is None:
                picture = replace(picture, keep=step.kept.put)
            elif start:
                picture = replace(picture, keep=lambda n, pair: step.kept.put(n, pair) if n < start else None)
                picture = with_states_kept(picture, start, states.append)
            velocities = model(**given, fps=DEFAULT_FPS, runtime=picture)
            _booked(step, "picture", ledger)
            if start is not None:
                _teach(model, given, step, run, start, states)
                _booked(step, "teacher", ledger)
            load = Workload(video=step_tokens(clip), audio=given["audio_latents"].shape[-1])
            layer = _bytes(model.layer_modules(run)[0])
            _sound(model, given, step, run, recipe.substeps, sound_room(config, load, rows, layer))
            _booked(step, "sound", ledger)
            del velocities
    return step


def _teach(
    model: Mova, given: dict[str, Tensor], step: FastStep, run: Runtime, start: int, states: list[States]
) -> None:
    taught = replace(_counted(step, "teacher", run), keep=step.kept.put)
    text, times = given["context"], (given["video_timestep"], given["audio_timestep"])
    more = {"condition": given["condition"], "fps": DEFAULT_FPS, "runtime": taught}
    entered = states.pop() if states else None
    collect(
        model, given["video_latents"], given["audio_latents"], (text, text), times, start=start, states=entered, **more
    )


def _sound(model: Mova, given: dict[str, Tensor], step: FastStep, run: Runtime, substeps: int, room: float) -> None:
    sound, text, time = (torch.cat(STREAMS * [given[name]]) for name in ("audio_latents", "context", "audio_timestep"))
    layers = audio_layers(model, sorted(step.kept))
    stay = layers[: staying(layers, room)]
    step.stay = sum(map(_bytes, stay))
    for count in range(substeps):
        there = frozenset(id(layer[0]) for layer in stay) if count else frozenset()
        audio_velocity(model, sound, text, time, step.kept, _counted(step, "sound", run, there))


def step_tokens(clip: Clip) -> int:
    """Video tokens of a clip."""
    return video_tokens(VideoShape(batch=1, frames=clip.frames, height=clip.height, width=clip.width))


def _counted(step: FastStep, part: str, run: Runtime, there: frozenset[int] = frozenset()) -> Runtime:
    """The same runtime, which books the weights of the layers it is to bring, those of `there` excepted."""

    def prefetch(layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]:
        brought = sum(_bytes(layer) for layer in layers if id(layer[0]) not in there)
        step.weights[part] = step.weights.get(part, 0) + brought
        return run.prefetch(layers)

    return replace(run, prefetch=prefetch)


def _bytes(layer: Sequence[nn.Module]) -> int:
    return sum(p.numel() * p.element_size() for module in layer for p in module.parameters())


def _booked(step: FastStep, part: str, ledger: Ledger) -> None:
    step.peaks[part], ledger.peak = ledger.peak, ledger.now


def table() -> Iterator[str]:
    """Rows of Markdown, each as it is counted."""
    yield "| size | quality | kept in | peak GiB | kept, out GB | kept, back GB | weights, streamed GB |"
    yield "|---|---|---|---|---|---|---|"
    for name, (height, width) in {"360p": SIZE_360P, "720p": SIZE_720P}.items():
        for quality in QUALITIES[:3]:
            for on_device in (True, False):
                step = account_fast_step(Clip(height=height, width=width), MOVA, quality, on_device)
                moved = (step.kept.sent / GB, step.kept.fetched / GB, sum(step.weights.values()) / GB)
                place = "VRAM" if on_device else "host memory"
                figures = " | ".join(f"{value:.1f}" for value in moved)
                yield f"| {name} | {quality} | {place} | {step.peak / GIB:.2f} | {figures} |"


def main() -> None:
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
