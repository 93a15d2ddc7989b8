"""The first frame, and optionally the last: picture -> clip for the video VAE -> condition beside the noisy latents.

Axes: B batch, F frames, T latent frames, H W pixels, h w latent pixels.
Source: OpenMOSS/MOVA 595a976 `datasets/transforms/custom.py` and `pipeline_mova.py` `prepare_latents`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from .errors import ShapeError
from .shapes import TEMPORAL_STRIDE, VIDEO_LATENT_CHANNELS, check_size, latent_frames


@dataclass(frozen=True, kw_only=True)
class PictureFit:
    """How a model's own code brings a picture to size, always by a crop in the middle and never by stretching it.

    `proportions_first`: the target's proportions are divided before the picture's side is, which decides the last pixel
    of the crop.
    """

    filter: Image.Resampling
    proportions_first: bool


MOVA_FIT = PictureFit(filter=Image.Resampling.BICUBIC, proportions_first=False)
PRISM_FIT = PictureFit(filter=Image.Resampling.LANCZOS, proportions_first=True)
"""Source: Tencent-Hunyuan/Prism d8a969b, `crop_and_resize` of its inference."""


def crop_box(
    source_height: int, source_width: int, height: int, width: int, fit: PictureFit = MOVA_FIT
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest centred part with the target's proportions, in whole pixels.

    Raises:
        ShapeError: the picture is empty, or so narrow that less than a pixel would be left.
    """
    if min(source_height, source_width, height, width) < 1:
        raise ShapeError(f"cannot crop a {source_width}x{source_height} picture to {width}x{height}; no side may be 0")
    crop_height, crop_width = source_height, source_width
    whole, ratio = fit.proportions_first, width / height
    if source_height / source_width < height / width:
        crop_width = int(source_height * ratio if whole else source_height / height * width)
    else:
        crop_height = int(source_width / ratio if whole else source_width / width * height)
    if min(crop_height, crop_width) < 1:
        raise ShapeError(
            f"a {source_width}x{source_height} picture is too narrow to crop to {width}x{height}; "
            "crop or pad it to similar proportions first"
        )
    left, top = (source_width - crop_width) // 2, (source_height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def crop_and_resize(image: Tensor, height: int, width: int, fit: PictureFit = MOVA_FIT) -> Tensor:
    """Pictures cropped to the target's proportions and resized: float32 (B, 3, height, width) in [-1, 1].

    `image` is (B, H, W, 3), uint8 or floating point in [0, 1]; a fourth channel is ignored. Floating point is rounded
    to 8 bits first, because Pillow's filter on 8-bit pixels is what MOVA was trained with.

    Raises:
        ShapeError: another shape, or a size that is not a multiple of 16.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ShapeError(f"an image has shape {tuple(image.shape)}; it must be (batch, height, width, 3)")
    check_size(width, height)
    pixels = image[..., :3].cpu()
    if pixels.is_floating_point():
        pixels = (255 * pixels.float()).round().clamp(0, 255).to(torch.uint8)
    box = crop_box(image.shape[1], image.shape[2], height, width, fit)
    resized = torch.stack([_resize(picture, box, height, width, fit) for picture in pixels])  # (B, height, width, 3)
    return (resized.float() / 255 * 2 - 1).movedim(-1, 1).contiguous().to(image.device)


def _resize(picture: Tensor, box: tuple[int, int, int, int], height: int, width: int, fit: PictureFit) -> Tensor:
    resized = Image.fromarray(picture.numpy()).crop(box).resize((width, height), fit.filter)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(height, width, 3)


def condition_clip(first: Tensor, frames: int, last: Tensor | None = None) -> Tensor:
    """The clip whose latents condition the video: (B, 3, F, H, W), mid-grey (0 in [-1, 1]) where no frame is given.

    `first` and `last` are (B, 3, H, W) in [-1, 1]. The grey frames are encoded too: their latents are not zero.

    Raises:
        ShapeError: `frames` is not 4n + 1, is 1 with a last frame, or the frames differ in shape.
    """
    latent_frames(frames)
    clip = first.new_zeros(first.shape[0], first.shape[1], frames, *first.shape[2:])
    clip[:, :, 0] = first
    if last is not None:
        if last.shape != first.shape:
            raise ShapeError(
                f"the last frame is {tuple(last.shape)}, the first {tuple(first.shape)}; resize them alike"
            )
        _check_last(frames)
        clip[:, :, -1] = last
    return clip


def condition_mask(frames: int, latent_height: int, latent_width: int, batch: int = 1, last: bool = False) -> Tensor:
    """Which frames are given: float32 (B, 4, T, h, w), 1 for given. A channel for each frame of a latent frame.

    The first frame fills all four channels of its latent frame; a last frame only the fourth of its own.

    Raises:
        ShapeError: `frames` is not 4n + 1, or is 1 with a last frame.
    """
    mask = torch.zeros(TEMPORAL_STRIDE, latent_frames(frames))
    mask[:, 0] = 1
    if last:
        _check_last(frames)
        mask[-1, -1] = 1
    return mask[None, :, :, None, None].repeat(batch, 1, 1, latent_height, latent_width)


def guide_clip(guides: Mapping[int, Tensor], frames: int) -> Tensor:
    """A clip with pictures at chosen frames: (B, 3, F, H, W), mid-grey elsewhere. `guides` maps frame -> (B, 3, H, W).

    Raises:
        ShapeError: `frames` is not 4n + 1, no guide, a guide outside the clip, or guides of different shapes.
    """
    latent_frames(frames)
    _check_guides(guides, frames)
    first = next(iter(guides.values()))
    clip = first.new_zeros(first.shape[0], first.shape[1], frames, *first.shape[2:])
    for frame, picture in guides.items():
        if picture.shape != first.shape:
            raise ShapeError(f"guide pictures are {tuple(picture.shape)} and {tuple(first.shape)}; resize them alike")
        clip[:, :, frame] = picture
    return clip


def guide_mask(guides: Collection[int], frames: int, latent_height: int, latent_width: int, batch: int = 1) -> Tensor:
    """Which frames are given: float32 (B, 4, T, h, w), 1 for given. A channel for each frame of a latent frame.

    Frame 0 fills all four channels of its latent frame, as `condition_mask`.

    Raises:
        ShapeError: `frames` is not 4n + 1, no guide, or a guide outside the clip.
    """
    count = latent_frames(frames)
    _check_guides(guides, frames)
    given = torch.zeros(frames + TEMPORAL_STRIDE - 1)
    given[[frame + TEMPORAL_STRIDE - 1 for frame in guides]] = 1
    given[:TEMPORAL_STRIDE] = float(0 in guides)
    mask = given.view(count, TEMPORAL_STRIDE).transpose(0, 1)
    return mask[None, :, :, None, None].repeat(batch, 1, 1, latent_height, latent_width)


def _check_guides(guides: Collection[int], frames: int) -> None:
    outside = [frame for frame in guides if not 0 <= frame < frames]
    if outside or not guides:
        raise ShapeError(
            f"guide pictures at frames {sorted(guides)} do not fit a clip of {frames} frames; "
            f"give at least one, from 0 to {frames - 1}"
        )


def assemble_condition(mask: Tensor, latents: Tensor) -> Tensor:
    """(B, 20, T, h, w): the mask's 4 channels, then the 16 of the normalised latents, in the latents' dtype.

    Raises:
        ShapeError: mask and latents do not belong together.
    """
    batch, channels, *grid = latents.shape
    if channels != VIDEO_LATENT_CHANNELS or mask.shape != (batch, TEMPORAL_STRIDE, *grid):
        raise ShapeError(
            f"a mask of shape {tuple(mask.shape)} and latents of shape {tuple(latents.shape)} make no condition; "
            f"they must be (B, {TEMPORAL_STRIDE}, T, h, w) and (B, {VIDEO_LATENT_CHANNELS}, T, h, w)"
        )
    return torch.cat([mask.to(latents), latents], dim=1)


def _check_last(frames: int) -> None:
    if frames < 2:
        raise ShapeError("a clip of 1 frame cannot have a last frame besides its first; make it 5 frames or longer")


def temporal_reach(encoder: nn.Module) -> int:
    """Frames before its own that a latent of a causal video encoder still depends on: 112 of Wan's.

    Every convolution adds its kernel, less one, in the frames that one of its steps stands for.
    """
    reach, stride = 0, 1
    for module in encoder.modules():
        if isinstance(module, nn.Conv3d):
            reach += (module.kernel_size[0] - 1) * stride
            stride *= module.stride[0]
    return reach


def frames_to_encode(last_guide: int, reach: int, frames: int) -> int:
    """How many frames of a clip, grey after `last_guide`, say all of its latents: those after them repeat the last."""
    return min(frames, TEMPORAL_STRIDE * ((last_guide + reach) // TEMPORAL_STRIDE + 1) + 1)
