"""Where a mouth is in each picture: from ComfyUI's face landmarks, else from OpenCV's cascade where that is installed.

Axes: F frames, H W pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypedDict

from torch import Tensor
from torch.nn import functional as F

from ....mova_core.errors import MovaError
from ....mova_core.inputs.numbers import told
from ....mova_core.meter.mouths import Box, followed, largest, of_face, of_lips

EVERY = 4  # pictures between two searches for a face
SEARCHED = 360  # pixels of the shorter side that a face is searched at
SMALLEST = 24  # pixels, at that size
CASCADE = "haarcascade_frontalface_default.xml"
LANDMARK_PARTS = {"frames", "image_size", "connection_sets"}


class Face(TypedDict):
    """One found face: its box (left, top, right, bottom), and (x, y) of each point of the mesh, in pixels."""

    bbox_xyxy: Sequence[float]
    landmarks_xy: Sequence[Sequence[float]]


class FaceLandmarks(TypedDict):
    """What ComfyUI calls FACE_LANDMARKS: faces of each picture, (height, width), and pairs of points by part of a face."""

    frames: Sequence[Sequence[Face]]
    image_size: tuple[int, int]
    connection_sets: Mapping[str, Iterable[tuple[int, int]]]


Search: TypeAlias = Callable[..., Iterable[Sequence[int]]]
"""For faces in a grey picture: (left, top, width, height) of each, in pixels."""


def check_landmarks(landmarks: object, images: Tensor) -> None:
    """Whether FACE_LANDMARKS are of these (B, H, W, 3) pictures.

    Raises:
        MovaError: they are not, or are something else.
    """
    if not isinstance(landmarks, Mapping) or not set(landmarks) >= LANDMARK_PARTS:
        raise MovaError(f"{told(landmarks)} is no FACE_LANDMARKS; connect 'Detect Face Landmarks (MediaPipe)'")
    count, (height, width) = len(landmarks["frames"]), landmarks["image_size"]
    if (count, height, width) != tuple(images.shape[:3]):
        raise MovaError(
            f"the face landmarks are of {count} pictures of {width}x{height}, the clip has {len(images)} of "
            f"{images.shape[2]}x{images.shape[1]}; detect them on the pictures that are measured"
        )


def landmarked(landmarks: FaceLandmarks, begin: int, frames: int) -> Tensor | None:
    """(F, 4) boxes of the mouth of the largest face in pictures `begin` and on of FACE_LANDMARKS; None without one."""
    lips = sorted({point for pair in landmarks["connection_sets"]["lips"] for point in pair})
    found: dict[int, Box] = {}
    for frame, faces in enumerate(landmarks["frames"][begin : begin + frames]):
        boxes = [_box(face["bbox_xyxy"]) for face in faces]
        which = largest(boxes)
        if which is not None:
            points = [[float(x) for x in faces[which]["landmarks_xy"][point]] for point in lips]
            found[frame] = of_lips(boxes[which], points)
    return followed(found, frames, frames)


def detected(images: Tensor) -> Tensor | None:
    """(F, 4) boxes of the mouth of the largest face in (F, H, W, 3) pictures.

    None without a face, and without OpenCV's cascade: no ComfyUI installs OpenCV, and its version 5 has no cascade.
    """
    search = _cascade()
    if search is None:
        return None
    scale = min(1.0, SEARCHED / min(images.shape[1:3]))
    found: dict[int, Box] = {}
    for frame in range(0, len(images), EVERY):
        grey = images[frame].float().cpu().mean(dim=-1)[None, None]
        if scale < 1:
            grey = F.interpolate(grey, scale_factor=scale, mode="area")
        seen = search((255 * grey[0, 0]).byte().numpy(), 1.1, 5, minSize=(SMALLEST, SMALLEST))
        boxes = [_box((x / scale, y / scale, (x + w) / scale, (y + h) / scale)) for x, y, w, h in seen]
        which = largest(boxes)
        if which is not None:
            found[frame] = of_face(boxes[which])
    return followed(found, len(range(0, len(images), EVERY)), len(images))


def _box(corners: Iterable[float]) -> Box:
    left, top, right, bottom = (float(corner) for corner in corners)
    return left, top, right, bottom


def _cascade() -> Search | None:
    try:
        import cv2
    except (ImportError, OSError):
        return None
    if not hasattr(cv2, "CascadeClassifier"):
        return None
    found = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)  # type: ignore[attr-defined]
    return None if found.empty() else found.detectMultiScale
