"""What is looked at: what a data set really feeds, and while a run learns a picture of its losses and clips made with the
adapters as they are."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import comfy.latent_formats
import comfy.samplers
import comfy.sd
import folder_paths
import torch
from comfy_api.latest import Input
from PIL import Image, ImageDraw
from torch import Tensor

from ....mova_core.checkpoint.whole_file import discard, temporary
from ....mova_core.image import condition_mask
from ....mova_core.sampling.schedule import Expert, sigmas
from ....mova_core.shapes import DEFAULT_FPS, AudioShape, audio_latent_shape, audio_samples
from ....mova_core.training.run import Evaluation, Record
from .. import joint_latents
from ..loaders import vaes
from ..media import video
from ..patching.patcher import MovaPatcher
from ..sampling import samplers
from ..types import Latent
from . import data_set
from .data_set import Clip, Coders, DataSet

log = logging.getLogger("mova")
WIDTH, HEIGHT, MARGIN = 960, 540, 48
COLOURS: dict[Expert, tuple[str, str]] = {
    "high": ("#c2410c", "#fdba74"),
    "low": ("#1d4ed8", "#93c5fd"),
}  # picture, sound
SMOOTH = 0.05  # share of a new value in the drawn mean
SHEET = 6  # pictures of a clip on the contact sheet
TILE = 160  # pixels of a picture's longer side there
Point: TypeAlias = tuple[float, float]
"""Of the drawing, in pixels from its upper left corner."""


@dataclass(frozen=True, kw_only=True)
class Previews:
    """How a clip is made on the way: the pack's own sampler at few steps, on the first clip of the data set."""

    model: MovaPatcher
    data: DataSet
    coders: Coders
    folder: Path
    steps: int
    cfg: float
    seed: int
    made: list[Path] = field(default_factory=list)

    def __call__(self, tensors: dict[str, Tensor], step: int) -> str:
        """Write an MP4 made with a LoRA's tensors and say where."""
        with torch.inference_mode():
            clip = self.data.clips[0]
            patched, _ = comfy.sd.load_lora_for_models(self.model, None, tensors, 1.0, 0.0)
            pictures, sound = self._made(patched, clip)
        path = self.folder / f"preview-{step:06}.mp4"
        self.folder.mkdir(parents=True, exist_ok=True)
        size, rate = (pictures.shape[2], pictures.shape[1]), self.coders.audio_vae.audio_sample_rate
        frames = (255 * pictures).round().clamp(0, 255).to(torch.uint8)
        video.write(path, size, [frames], sound[0], DEFAULT_FPS, rate, {"caption": clip.caption}, frames=len(frames))
        self.made.append(path)
        return f"preview after step {step}: {path.name} in {path.parent.name}"

    def _made(self, patched: MovaPatcher, clip: Clip) -> tuple[Tensor, Tensor]:
        kept = data_set.media(clip)
        image = patched.model.latent_format.process_out(kept["image"])
        mask = condition_mask(clip.frames, *image.shape[3:])
        values = {"concat_latent_image": image, "concat_mask": 1.0 - mask, "frame_rate": DEFAULT_FPS}
        pair = ([[data_set.context(path), dict(values)]] for path in (clip.prompt, self.data.blank))
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(*pair)
        guider.set_cfg(self.cfg)
        shape = audio_latent_shape(AudioShape(batch=1, steps=kept["audio"].shape[-1]), kept["audio"].shape[1])
        latent: Latent = {"samples": joint_latents.joint(torch.zeros_like(kept["video"]), torch.zeros(shape))}
        walked = sigmas(self.steps, patched.model.shifts()[0], patched.model.model_config.scheduler.sigma_min)
        done = samplers.sample(guider, latent, seed=self.seed, sampler=samplers.sampler_of("euler"), values=walked)
        picture, heard = joint_latents.streams(done)
        pictures = self.coders.vae.decode(picture)[0].cpu().float()
        sound = self.coders.audio_vae.decode(heard).movedim(-1, 1).cpu().float()
        return pictures, sound[..., : audio_samples(clip.frames, DEFAULT_FPS, self.coders.audio_vae.audio_grid)]


def decoded(clip: Clip, coders: Coders) -> tuple[Tensor, Tensor]:
    """(F, H, W, 3) pictures and (1, 1, S) sound of a clip, back from the cache: what is really fed."""
    kept = data_set.media(clip)
    raw = comfy.latent_formats.Wan21().process_out(kept["video"])
    pictures = vaes.decoded(coders.vae, raw)[0].cpu().float()
    sound = vaes.heard(coders.audio_vae, kept["audio"]).cpu().float()
    return pictures, sound[..., : audio_samples(clip.frames, DEFAULT_FPS, coders.audio_vae.audio_grid)]


def contact_sheet(strips: Iterable[Tensor]) -> Tensor:
    """(1, H, W, 3): a row of `SHEET` pictures for each clip, evenly spread over it."""
    rows = []
    for pictures in strips:
        chosen = pictures[torch.linspace(0, len(pictures) - 1, SHEET).round().long()]
        share = TILE / max(chosen.shape[1:3])
        sides = [max(1, round(share * side)) for side in chosen.shape[1:3]]
        small = torch.nn.functional.interpolate(chosen.movedim(-1, 1), sides, mode="area").movedim(1, -1)
        square = torch.ones(SHEET, TILE, TILE, 3)
        square[:, : sides[0], : sides[1]] = small
        rows.append(torch.cat([*square], dim=1))
    return torch.cat(rows)[None].clamp(0, 1)


def preview(made: DataSet, coders: Coders, count: int) -> tuple[Tensor, Input.Audio, Path | None]:
    """Contact sheet and sound of clips spread over the data set, decoded back from the cache, and a film of both among
    ComfyUI's temporary files; without any clip a white sheet, silence, and no film."""
    places = torch.linspace(0, len(made.clips) - 1, min(count, len(made.clips))).round().int().tolist()
    shown = [decoded(made.clips[place], coders) for place in places]
    rate = coders.audio_vae.audio_sample_rate
    if not shown:
        return torch.ones(1, TILE, TILE, 3), {"waveform": torch.zeros(1, 1, rate // 10), "sample_rate": rate}, None
    sheet = contact_sheet(pictures for pictures, _ in shown)
    waveform = torch.cat([sound for _, sound in shown], dim=-1)
    name = hashlib.sha256("".join(made.clips[place].media.name for place in places).encode()).hexdigest()[:16]
    path = Path(folder_paths.get_temp_directory(), f"mova_clips_{name}.mp4")
    reel(path, [pictures for pictures, _ in shown], waveform[0], rate)
    return sheet, {"waveform": waveform, "sample_rate": rate}, path


def reel(path: Path, clips: Sequence[Tensor], sound: Tensor, rate: int) -> None:
    """Write (F, H, W, 3) clips of any sizes one after the other, with their (1, S) sound, as an MP4."""
    height, width = (max(clip.shape[side] for clip in clips) for side in (1, 2))
    pieces = ((255 * _on_grey(clip, height, width)).round().clamp(0, 255).to(torch.uint8) for clip in clips)
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write(path, (width, height), pieces, sound, DEFAULT_FPS, rate, {}, frames=sum(map(len, clips)))


def _on_grey(clip: Tensor, height: int, width: int) -> Tensor:
    below, right = height - clip.shape[1], width - clip.shape[2]
    return torch.nn.functional.pad(clip, (0, 0, 0, right, 0, below), value=0.5)


def curve(path: Path, records: Sequence[Record], evaluations: Sequence[Evaluation]) -> None:
    """Draw the losses of a run into a PNG: a faint dot a step, their running mean, and the fixed samples as rings."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    points = [(r.step + 1, r.expert, kind, getattr(r, kind)) for r in records for kind in ("video", "audio")]
    rings = [
        (e["step"], expert, kind, e[expert][number])
        for e in evaluations
        for expert in COLOURS
        if expert in e
        for number, kind in enumerate(("video", "audio"))
    ]
    top = max((value for *_, value in points + rings), default=1.0) or 1.0
    last = max((step for step, *_ in points + rings), default=1) or 1

    def place(step: int, value: float) -> Point:
        return MARGIN + (WIDTH - 2 * MARGIN) * step / last, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * min(
            value / top, 1
        )

    _axes(pen, top, last)
    for expert, colours in COLOURS.items():
        for number, kind in enumerate(("video", "audio")):
            own = [(step, value) for step, e, k, value in points if (e, k) == (expert, kind)]
            _line(pen, [place(*each) for each in own], [place(*each) for each in _means(own)], colours[number])
            for x, y in (place(step, value) for step, e, k, value in rings if (e, k) == (expert, kind)):
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), outline=colours[number], width=2)
    part = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(part, "png")
        os.replace(part, path)  # noqa: PTH105, atomic on every system
    except OSError as error:  # the LoRA is saved: a picture of its losses is no reason to end otherwise
        log.warning("the losses of %s are not drawn: %s", path.stem, error.strerror or error)
        discard(part)


def _means(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The running mean of values by step, at first that of all there are: one value of a clip and a noise level by chance
    would bend the curve for long."""
    found: list[tuple[int, float]] = []
    for count, (step, value) in enumerate(points, 1):
        before = found[-1][1] if found else value
        found.append((step, before + max(SMOOTH, 1 / count) * (value - before)))
    return found


def _line(pen: ImageDraw.ImageDraw, dots: Sequence[Point], mean: Sequence[Point], colour: str) -> None:
    for x, y in dots:
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colour)
    if len(mean) > 1:
        pen.line(mean, fill=colour, width=2)


def _axes(pen: ImageDraw.ImageDraw, top: float, last: int) -> None:
    pen.line([(MARGIN, MARGIN), (MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN)], fill="black", width=1)
    pen.text((8, MARGIN - 6), f"{top:.3g}", fill="black")
    pen.text((8, HEIGHT - MARGIN - 6), "0", fill="black")
    pen.text(
        (MARGIN, HEIGHT - MARGIN + 8),
        "loss by step; dots: steps, lines: their mean, rings: fixed samples",
        fill="black",
    )
    pen.text((WIDTH - MARGIN - 40, HEIGHT - MARGIN + 8), f"step {last}", fill="black")
    for number, (expert, colours) in enumerate(COLOURS.items()):
        for second, (kind, colour) in enumerate(zip(("picture", "sound"), colours, strict=True)):
            x = MARGIN + 8 + 230 * number + 115 * second
            pen.line([(x, 20), (x + 16, 20)], fill=colour, width=3)
            pen.text((x + 20, 14), f"{expert} {kind}", fill="black")
