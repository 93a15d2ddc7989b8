"""Inputs that several nodes have, made in one place, and the check of everything that comes in.

ComfyUI checks what is typed into a widget; a linked value arrives as it is. `checked` holds every value against what its
input states (type, range, choices), in the same words for every node.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import MovaError
from ..mova_core.film.shots import Shot
from ..mova_core.inputs import numbers, pictures, sounds
from ..mova_core.inputs.numbers import told
from ..mova_core.shapes import DEFAULT_FPS, FPS_RANGE
from .host import checks, messages
from .host.films.film import Film, Settings
from .host.loaders import audio_vae, text
from .host.meters import faces
from .host.sampling import long_runs
from .host.training.data_set import DataSet

# Inputs that several nodes have


def fps(tooltip: str) -> io.Float.Input:
    """Pictures a second."""
    low, high = FPS_RANGE
    return io.Float.Input("fps", default=DEFAULT_FPS, min=low, max=high, step=0.01, tooltip=tooltip)


def frames(tooltip: str, *, least: int = 1) -> io.Int.Input:
    """Pictures of a clip, 4n + 1."""
    return io.Int.Input("frames", default=193, min=least, max=2001, step=4, tooltip=tooltip)


def size(tooltip: str = "Pixels, a multiple of 16.", height: str = "") -> tuple[io.Int.Input, io.Int.Input]:
    """Width and height of a clip; `height` where the latter says more."""
    limits = {"min": 16, "max": 4096, "step": 16}
    return (
        io.Int.Input("width", default=640, tooltip=tooltip, **limits),
        io.Int.Input("height", default=352, tooltip=height or tooltip, **limits),
    )


def prompts(positive: str, negative: str = "") -> tuple[io.Conditioning.Input, io.Conditioning.Input]:
    """What to go towards and what away from, with their tooltips; one for both where `negative` has none."""
    return (
        io.Conditioning.Input("positive", tooltip=positive),
        io.Conditioning.Input("negative", tooltip=negative or positive),
    )


def prompt_outputs() -> tuple[io.Conditioning.Output, io.Conditioning.Output]:
    """Both, for the sampler."""
    return io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")


def seed(tooltip: str) -> io.Int.Input:
    limits = {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}
    return io.Int.Input("seed", **limits, control_after_generate=True, tooltip=tooltip)


def overlap(tooltip: str) -> io.Int.Input:
    """Pictures that two clips share, 4n + 1."""
    return io.Int.Input("overlap", default=25, min=1, max=1001, step=4, tooltip=tooltip)


def percent(name: str, default: float, tooltip: str, **options: Any) -> io.Float.Input:
    """A share of the steps."""
    span = {"min": 0.0, "max": 1.0, "step": 0.001}
    return io.Float.Input(name, default=default, advanced=True, tooltip=tooltip, **span, **options)


def scale(name: str, default: float, tooltip: str, **options: Any) -> io.Float.Input:
    """A guidance scale."""
    return io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=tooltip, **options)


def keeping() -> tuple[io.Combo.Input, io.Int.Input]:
    """How a run is kept on its way."""
    return (
        io.Combo.Input(
            "resume",
            options=list(long_runs.RESUME_MODES),
            default=long_runs.AUTO,
            optional=True,
            advanced=True,
            tooltip="Keep the run on its way in output/mova_runs: after a crash or a cancel the same inputs go on from there, "
            "with the same result. 'auto' keeps runs that will take over five minutes. What is kept goes when the run ends.",
        ),
        io.Int.Input(
            "keep_every",
            default=1,
            min=1,
            max=1000,
            optional=True,
            advanced=True,
            tooltip="Steps between two writes. A write takes a fraction of a second; a cancel loses no step in any case.",
        ),
    )


def keep_minutes() -> io.Int.Input:
    """The same by the clock."""
    return io.Int.Input(
        "keep_minutes",
        default=0,
        min=0,
        max=1440,
        optional=True,
        advanced=True,
        tooltip="Minutes after the last write at which the next step is written too, however few keep_every has counted. 0 "
        "counts steps alone.",
    )


# Inputs that check their value in a way of their own


class SoundOrSilence(io.Audio.Input):
    """AUDIO where no sound means silence; its value is a `Sound`, or None."""

    def checked(self, value: Any) -> sounds.Sound | None:
        return sounds.sound(value, silence=True)


class SpoiledPictures(io.Image.Input):
    """IMAGE where NaN is what is looked for."""

    def checked(self, value: Any) -> Any:
        return pictures.spoiled_pictures(value)


class SpoiledSound(io.Audio.Input):
    """AUDIO where NaN is what is looked for."""

    def checked(self, value: Any) -> sounds.Sound | None:
        return sounds.spoiled_sound(value)


class AudioVae(io.Vae.Input):
    """MOVA's audio VAE."""

    def __init__(self, tooltip: str, **options: Any) -> None:
        super().__init__("audio_vae", tooltip=tooltip, **options)

    def checked(self, value: Any) -> Any:
        return audio_vae.check(value)


class OtherCodec(AudioVae):
    """The audio VAE where a video VAE that knows no codec begins a clip; optional."""

    def __init__(self) -> None:
        super().__init__(
            "MOVA's audio VAE: it says how many steps the sound has. Needed where the video VAE is not that of "
            "'MOVA Loader' and the codec has another rate than the published one; without it the published rate counts.",
            optional=True,
        )


class LaterModel(io.Model.Input):
    """MOVA's MODEL, made only where the node asks for it; None where it did not."""

    def __init__(self, name: str, *, tooltip: str) -> None:
        super().__init__(name, tooltip=tooltip, lazy=True)

    def checked(self, value: Any) -> Any:
        return None if value is None else checks.checked_model(value)


class AnyModel(io.Model.Input):
    """A MODEL that need not be MOVA."""

    def checked(self, value: Any) -> Any:
        return checks.check_patcher(value)


class FileChoice(io.Combo.Input):
    """A file or folder: who opens it says best what is wrong with a name that is not listed."""

    def checked(self, value: Any) -> str:
        return numbers.words(value)


# Checks of all others, by their type


def _choice(given: io.Combo.Input, value: Any) -> str:
    return numbers.choice(value, given.options)


def _shots(_: io.Input, value: Any) -> tuple[Shot, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, Shot) for each in value):
        raise MovaError(f"{told(value)} is no list of shots; connect 'MOVA Shot' or 'MOVA Shots from Text'")
    return tuple(value)


def _of(kind: type, maker: str) -> Callable[[io.Input, Any], Any]:
    """A check that a value is what one of our own nodes gives."""

    def check(given: io.Input, value: Any) -> Any:
        if not isinstance(value, kind):
            raise MovaError(f"{told(value)} is no {given.get_io_type()}; connect {maker}")
        return value

    return check


CHECKS: Mapping[str, Callable[[Any, Any], Any]] = {
    "INT": lambda given, value: numbers.whole(value, given.min, given.max),
    "FLOAT": lambda given, value: numbers.real(value, given.min, given.max),
    "STRING": lambda _, value: numbers.words(value),
    "BOOLEAN": lambda _, value: numbers.switch(value),
    "COMBO": _choice,
    "IMAGE": lambda _, value: pictures.pictures(value, messages.warn),
    "AUDIO": lambda _, value: sounds.sound(value),
    "LATENT": lambda _, value: checks.check_latent(value),
    "CONDITIONING": lambda _, value: checks.check_conditioning(value),
    "VAE": lambda _, value: audio_vae.check_video(value),
    "CLIP": lambda _, value: text.check_clip(value),
    "MODEL": lambda _, value: checks.checked_model(value),
    "FACE_LANDMARKS": lambda _, value: faces.checked_landmarks(value),
    "MOVA_SHOTS": _shots,
    "MOVA_CLIPS": _of(DataSet, "'MOVA Training Clips', and where 'MOVA Training Budget' lies between, its clips too"),
    "MOVA_SAMPLER_SETTINGS": _of(Settings, "'MOVA Film Sampler' or 'MOVA Film Fast Sampler'"),
    "MOVA_FILM": _of(Film, "nothing here: 'MOVA Film' makes this node itself"),
    "MOVA_RECIPE": _of(Mapping, "nothing here: 'MOVA Film' makes this node itself"),
}


def checked(stated: Sequence[io.Input], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` by input, each in the form that our nodes work with; an optional input that brings nothing is left out.

    Raises:
        MovaError: a value that its input does not take; the message begins with the input's name.
    """
    known = {given.id: given for given in stated}
    found = dict(values)
    for name, given in known.items():
        if name not in values and not given.optional:
            raise MovaError(f"nothing is connected to {name!r}; connect it")
        if name in values and values[name] is None and given.optional:
            del found[name]
        elif name in values:
            found[name] = _checked(given, values[name])
    return found


def _checked(given: io.Input, value: Any) -> Any:
    if given.rawLink:  # the link itself, of what may never run
        return value
    own = getattr(given, "checked", None)
    try:
        return own(value) if own else CHECKS[given.get_io_type()](given, value)
    except MovaError as error:
        raise type(error)(f"{given.id}: {error}") from None
    except Exception as error:  # a value of another pack's own class that cannot even be asked what it is
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise MovaError(
            f"{given.id}: {told(value)} cannot be read ({words:.200}); connect what another node gives, or leave out the node "
            "before"
        ) from error
