"""Where a mouth is in each picture: from ComfyUI's face landmarks, else from OpenCV's cascade where that is installed.

Axes: F frames, H W pixels.
"""

import math
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
FARTHEST = 1e6  # pixels from a picture's corner that a face can lie
LANDMARK_PARTS = {"frames", "image_size", "connection_sets"}


class Face(TypedDict):
    """One found face: its box (left, top, right, bottom), and (x, y) of each point of the mesh, in pixels."""

    bbox_xyxy: Sequence[float]
    landmarks_xy: Sequence[Sequence[float]] | Mapping[int, Sequence[float]]


class FaceLandmarks(TypedDict):
    """What ComfyUI calls FACE_LANDMARKS: faces of each picture, (height, width), and pairs of points by part of a face."""

    frames: Sequence[Sequence[Face]]
    image_size: tuple[int, int]
    connection_sets: Mapping[str, Iterable[tuple[int, int]]]


Search: TypeAlias = Callable[..., Iterable[Sequence[int]]]
"""For faces in a grey picture: (left, top, width, height) of each, in pixels."""


def checked_landmarks(value: object) -> FaceLandmarks:
    """FACE_LANDMARKS with what is read of them, in finite numbers.

    Raises:
        MovaError: it is something else, or holds faces without box or lips.
    """
    if not isinstance(value, Mapping) or not set(value) >= LANDMARK_PARTS:
        raise MovaError(f"{told(value)} is no FACE_LANDMARKS; connect 'Detect Face Landmarks (MediaPipe)'")
    try:
        height, width = (int(side) for side in value["image_size"])
        pairs = [(int(one), int(other)) for one, other in value["connection_sets"]["lips"]]
        lips = {point for pair in pairs for point in pair}
        frames = [[_checked_face(face, lips) for face in faces] for faces in value["frames"]]
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise MovaError(
            f"these FACE_LANDMARKS cannot be read ({type(error).__name__}: {error!s:.100}): each face must have a box of four "
            "numbers and the points of its lips; connect 'Detect Face Landmarks (MediaPipe)'"
        ) from None
    return {"frames": frames, "image_size": (height, width), "connection_sets": {"lips": pairs}}


def _checked_face(face: Face, lips: Iterable[int]) -> Face:
    points = {point: [float(x) for x in face["landmarks_xy"][point]] for point in lips}
    box = _box(face["bbox_xyxy"])
    if not all(map(math.isfinite, [*box, *(x for point in points.values() for x in point)])):
        raise ValueError("a face's numbers are NaN or infinite")
    if any(len(point) != 2 for point in points.values()) or max(map(abs, box)) > FARTHEST:
        raise ValueError("a face is no place in a picture")
    return {"bbox_xyxy": box, "landmarks_xy": points}


def check_landmarks(landmarks: FaceLandmarks, images: Tensor) -> None:
    """Whether FACE_LANDMARKS are of these (B, H, W, 3) pictures.

    Raises:
        MovaError: they are not.
    """
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
