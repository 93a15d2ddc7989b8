"""LATENT: the two streams of a joint latent.

Axes: B batch, T latent frames, h w latent pixels, C channels, A audio steps.
"""

from collections.abc import Sequence
from numbers import Integral

from torch import Tensor

from ..errors import ShapeError
from ..shapes import SPATIAL_STRIDE, frames_of
from .numbers import told
from .tensors import check_dense, extent

MAKE_IT = "Make it with 'MOVA Image to Video+Audio' or join both with 'Concat AV Latent'"
LARGEST_LATENT = 1e6  # latents are of the order of 1
MASK_OVERSHOOT = 0.01  # of a mask that was resized
LARGEST_INDEX = 4095  # noise is drawn up to it, one clip after the other
MOST_CLIPS = LARGEST_INDEX + 1
LONGEST_LATENT = 2**14 + 1  # eleven minutes


def joint_streams(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Video (B, C, T, h, w) and audio (B, C, A), both with something in them.

    Raises:
        ShapeError: other streams, of unequal batches, or an empty one.
    """
    found = ", ".join(str(tuple(part.shape)) for part in parts)
    if len(parts) != 2 or parts[0].ndim != 5 or parts[1].ndim != 3 or len(parts[0]) != len(parts[1]):
        raise ShapeError(
            f"this latent holds {found}; MOVA wants a joint latent: video (batch, 16, frames, height, width) and audio "
            f"(batch, channels, steps). {MAKE_IT}"
        )
    for name, part in zip(("picture", "sound"), parts):
        if not part.numel():
            raise ShapeError(f"the {name} of this latent is empty: it holds {found}. {MAKE_IT}")
    clips, frames = len(parts[0]), frames_of(parts[0].shape[2])
    if clips > MOST_CLIPS or frames > LONGEST_LATENT:
        raise ShapeError(
            f"this latent is {clips} clips of {frames} frames; {MOST_CLIPS} clips of {LONGEST_LATENT} are the most"
        )
    return parts[0], parts[1]


def check_fit(video: Sequence[int], steps: int, condition: Sequence[int], conditioned_steps: int | None = None) -> None:
    """Accept a latent of the size and length that its conditioning was made for.

    `video` and `condition` are (B, C, T, h, w) of the latent and of the first frames in the conditioning; `steps` are
    the latent's audio steps, `conditioned_steps` those of the clip that the conditioning was made for, None where it
    does not say.

    Raises:
        ShapeError: another size or length.
    """
    if len(condition) != 5 or condition[1] != video[1]:
        raise ShapeError(
            f"the first frames in this conditioning are {tuple(condition)}, for a latent of {tuple(video)}; use 'MOVA "
            "Image to Video+Audio' with the VAE of the same 'MOVA Loader'"
        )
    (frames, height, width), (known, tall, wide) = video[2:], condition[2:]
    if (frames, height, width) != (known, tall, wide):
        stride = SPATIAL_STRIDE
        raise ShapeError(
            f"the latent is a clip of {frames_of(frames)} frames of {width * stride}x{height * stride}, its "
            f"conditioning was made for {frames_of(known)} of {wide * stride}x{tall * stride}; connect conditioning "
            "and latent of the same 'MOVA Image to Video+Audio', or make the conditioning at the new size"
        )
    if conditioned_steps not in (None, steps):
        raise ShapeError(
            f"the sound of this latent has {steps} steps, the clip that its conditioning was made for "
            f"{conditioned_steps}; connect conditioning and latent of the same 'MOVA Image to Video+Audio', or cut or "
            "fill the sound to the pictures before it is encoded"
        )


def check_streams(shapes: Sequence[Sequence[int]] | None) -> None:
    """Accept the shapes of a latent's streams: a video and a sound.

    Raises:
        ShapeError: one alone, or more.
    """
    if shapes is None or len(shapes) < 2:
        raise ShapeError(
            "MOVA denoises picture and sound together, but this latent holds one stream. Make it with "
            "'MOVA Image to Video+Audio', or join a video and an audio latent with 'Concat AV Latent'"
        )
    if len(shapes) > 2:
        raise ShapeError(
            f"this latent holds {len(shapes)} streams, MOVA's holds picture and sound: it is of another model, or was "
            "joined twice. Make it with 'MOVA Image to Video+Audio'"
        )


def check_finite(name: str, part: Tensor) -> None:
    """Accept numbers only.

    Raises:
        ShapeError: NaN, infinity or the like among them, or none that can be computed with.
    """
    low, high = _range(name, part)
    if not (low > -LARGEST_LATENT and high < LARGEST_LATENT):  # NaN fails both
        raise ShapeError(
            f"{name} runs from {low:g} to {high:g}, NaN or without bound: the node or model that made it failed. "
            "Make it again, in another precision or without the last patch"
        )


def check_mask(part: Tensor) -> None:
    """Accept a noise mask: 1 where a latent is made anew, 0 where it is kept.

    Raises:
        ShapeError: other numbers, or none.
    """
    low, high = _range("the noise mask of this latent", part)
    if not (low >= -MASK_OVERSHOOT and high <= 1 + MASK_OVERSHOOT):  # NaN fails both
        raise ShapeError(
            f"the noise mask of this latent runs from {low:g} to {high:g}; it must lie in 0..1, where 1 is made anew. "
            "Make it with 'MOVA Mask'"
        )


def check_masks(masks: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
    """Accept noise masks of a joint latent's streams, or of the first alone, which samplers bring to its shape.

    Raises:
        ShapeError: more masks than streams, other numbers than 0..1, or a shape that fits no such stream.
    """
    if len(masks) > len(parts):
        raise ShapeError(
            f"the noise mask of this latent is of {len(masks)} streams, the latent of {len(parts)}; make it anew with "
            "'MOVA Mask'"
        )
    for name, mask, part in zip(("picture", "sound"), masks, parts):
        check_mask(mask)
        flat = part.ndim == 5 and 2 <= mask.ndim < 5  # pictures, one after the other
        if not flat and (mask.ndim != part.ndim or mask.shape[1] > part.shape[1]):
            raise ShapeError(
                f"the noise mask of the {name} is {tuple(mask.shape)}, for a latent of {tuple(part.shape)}; it must "
                "have as many axes, and one channel. Make it with 'MOVA Mask'"
            )


def _range(name: str, part: Tensor) -> tuple[float, float]:
    check_dense(name, part)
    if not part.is_floating_point() or part.element_size() == 1:
        raise ShapeError(f"{name} holds {part.dtype}; it must be floating point of 16 bits or more")
    if not part.numel():
        raise ShapeError(f"{name} is empty: its shape is {tuple(part.shape)}")
    return extent(part)


def check_batch_index(value: object, clips: int) -> None:
    """Accept a LATENT's `batch_index`: which noise of a batch each clip has.

    Raises:
        ShapeError: not one whole number from 0 a clip.
    """
    numbers = list(value) if isinstance(value, list | tuple | Tensor) else [None]
    if len(numbers) != clips or not all(
        isinstance(n, Integral) and 0 <= int(n) <= LARGEST_INDEX for n in map(_plain, numbers)
    ):
        raise ShapeError(
            f"the batch_index of this latent is {told(str(value))}, for {clips} clips; it must be one whole number "
            f"from 0 to {LARGEST_INDEX} for each. Leave out the node that set it"
        )


def _plain(number: object) -> object:
    return number.item() if isinstance(number, Tensor) else number
