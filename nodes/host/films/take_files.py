"""Takes as the nodes of a film use them: the end that a shot goes on from, a decoded shot put on disk, all joined.

Axes: B batch, F frames, H W pixels, C channels, S samples.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import comfy.sd
from torch import Tensor

from ....mova_core import mp4
from ....mova_core.errors import MovaError
from ....mova_core.film import takes
from ....mova_core.film.seams import colours, joined_sound, matched_colours, references
from ....mova_core.film.shots import OVERLAP, Planned
from ....mova_core.film.takes import ShotRecipe, Take
from ....mova_core.inputs.sounds import Sound
from ....mova_core.waveform import five_one
from .. import joint_latents
from ..loaders.vaes import decoded as decoded_by
from ..media import resampling, video
from ..types import Latent
from .film import Film, ending, film_digest, made_with

STREAMS = ("video", "audio")  # of a take's latents


def end_of(film: Film, name: str, count: int, vae: comfy.sd.VAE) -> tuple[Tensor, Sound]:
    """The last `count` pictures of a take, (F, H, W, 3) in 0..1, and the sound of what they are the end of."""
    take = takes.find(film.folder, name)
    pictures = takes.as_light(take.pictures())
    if len(pictures) < count:  # it was made for a shorter overlap
        pictures = takes.as_light(
            _as_bytes(decoded_by(vae, take.latents()[0].to(joint_latents.device())).flatten(0, 1))
        )
    return pictures[-count:], take.sound_of(count)


def keep(
    film: Film,
    each: Planned,
    before: str,
    latent: Latent,
    decoded: tuple[Tensor, Sound],
    recipes: tuple[ShotRecipe, ShotRecipe],
    workflow: Mapping[str, object],
) -> Take:
    """Put a shot on disk: its latents, and (F, H, W, 3) in 0..1 with its sound or the recording that it was made for.

    `before` names the take that it began with, empty for none; `recipes` are signature and content, their ends open.
    """
    pictures, sound = _as_bytes(decoded[0]), each.heard() or decoded[1]
    heard = sound.waveform[0].float().cpu().contiguous()
    tail = pictures[-_kept(film, each) :].clone()
    end = takes.find(film.folder, before).end if before else ""
    signature, content = (ending(recipe, end) for recipe in recipes)
    mean, spread = colours(pictures)
    take = Take(
        shot=each.shot.name,
        number=0,
        frames=len(pictures),
        held=each.held,
        height=film.height,
        width=film.width,
        fps=film.fps,
        sample_rate=sound.rate,
        end=takes.end_digest(tail, heard),
        content=content,
        signatures=[signature],
        mean=mean,
        spread=spread,
        made_with=made_with(),
    )
    latents = {name: part.float().cpu().contiguous() for name, part in zip(STREAMS, joint_latents.streams(latent))}

    def write_clip(path: Path) -> None:
        rate = video.player_rate([sound.rate])
        played = five_one(resampling.resampled(heard[None], sound.rate, rate))[0]
        size, frames = (film.width, film.height), len(pictures)
        video.write(path, size, [pictures], played, film.fps, rate, workflow, frames=frames, quality=mp4.MASTER_CRF)

    return takes.write_take(film.folder, take, latents, {"pictures": tail, "sound": heard}, write_clip)


def _as_bytes(pictures: Tensor) -> Tensor:
    return (pictures.float().clamp(0, 1) * 255).round().byte().cpu()


def _kept(film: Film, each: Planned) -> int:
    """Pictures of its end that a shot keeps: as many as any that goes on from it holds, or as are usual."""
    wanted = [other.held for other in film.planned if other.needs == each.shot.name]
    return min(max([OVERLAP, *wanted]), each.frames)


def written(film: Film, parts: Sequence[Take], prompt: object, extra: Mapping[str, object] | None) -> Path:
    """The file of a film of these takes, written where it is not there yet, or not whole.

    Raises:
        MovaError: a take of another size or frame rate than the film's.
    """
    _check_alike(film, parts)
    path = film.folder / f"film_{film_digest(film, parts)}.mp4"
    if not mp4.is_whole(path, (film.width, film.height), _frames(parts)):
        _write_film(path, film, parts, video.workflow_metadata(prompt, extra))
    return path


def _check_alike(film: Film, parts: Sequence[Take]) -> None:
    for each, part in zip(film.planned, parts):
        if (part.width, part.height, part.fps) != (film.width, film.height, film.fps):
            raise MovaError(
                f"{each.place}: its take {part.digest[:8]} is {part.width} x {part.height} at {part.fps:g} a second, the film "
                f"{film.width} x {film.height} at {film.fps:g}; take away its lock or chosen take, or make the film like it"
            )


def _frames(parts: Sequence[Take]) -> int:
    return sum(part.frames for part in parts) - sum(part.held for part in parts[1:])


def _write_film(path: Path, film: Film, parts: Sequence[Take], notes: Mapping[str, object]) -> None:
    held = [0, *(part.held for part in parts[1:])]
    rate = video.player_rate([part.sample_rate for part in parts])
    sound = five_one(joined_sound(parts, held, film.match_sound, rate, resampling.resampled))[0]
    firsts = references(held, film.match_picture)
    pieces = (
        matched_colours(piece, part, parts[first])
        for part, overlap, first in zip(parts, held, firsts)
        for piece in mp4.read(part.clip, (part.width, part.height), part.frames, overlap)
    )
    video.write(path, (film.width, film.height), pieces, sound, film.fps, rate, notes, frames=_frames(parts))
