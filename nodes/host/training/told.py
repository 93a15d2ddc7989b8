"""What a user should hear of a data set: its sizes, and every clip that teaches less than it seems to, by name."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from ....mova_core.image import crop_box
from ....mova_core.shapes import DEFAULT_FPS
from ....mova_core.training import clips
from ..media.recordings import Probe

REPORTED = 20  # of a kind, in the report
MUCH = 1 / 3  # of a picture that is cut away
SMALL = 0.75  # of the wanted height and width
SLOW = 20.0  # pictures a second
DULL = 32000  # samples a second of a sound that lacks what the model hears above
KINDS = (
    ("short", f"too short, left out (under {clips.SHORTEST} pictures)"),
    ("mute", "without sound, the picture alone is learned"),
    ("silent", f"silent (below {clips.SILENT_CLIP_DB:g} dB), the picture alone is learned"),
    ("hdr", "HDR, whose colours come out pale: convert to SDR first"),
    ("interlaced", "interlaced, whose combs would be learned: deinterlace first"),
    ("cropped", "more than a third of the picture is cut away: sizes 'buckets' keeps it"),
    ("small", "smaller than what is trained, and blurred by that"),
    ("slow", f"under {SLOW:g} pictures a second, which are shown more than once"),
    ("dull", f"sound of under {DULL // 1000} kHz, duller than what the model makes"),
    ("same", "the same recording as another, learned twice as often"),
    ("others", "in the folder and not trained on"),
    ("cut", "captions too long, cut at 512 tokens"),
)


class Named(Protocol):
    """A clip of the data set."""

    @property
    def frames(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


class Told:
    """Names of each of KINDS, as they are found."""

    def __init__(self, others: Sequence[str] = ()) -> None:
        self.found: dict[str, list[str]] = {kind: [] for kind, _ in KINDS}
        self.found["others"] += others
        self.encoded = 0

    def add(self, kind: str, name: str) -> None:
        self.found[kind].append(name)

    def look(self, name: str, probe: Probe, size: tuple[int, int], *, windows: int) -> None:
        """At a recording that is trained at `size` (height, width), in so many windows."""
        if not windows:
            self.add("short", f"{name} ({probe.seconds:.2f} s)")
            return
        left, top, right, bottom = crop_box(probe.height, probe.width, *size)
        tall, wide = bottom - top, right - left
        if tall * wide < (1 - MUCH) * probe.height * probe.width:
            self.add("cropped", f"{name} ({probe.width}x{probe.height})")
        if tall < SMALL * size[0]:
            self.add("small", f"{name} ({probe.width}x{probe.height})")
        if probe.rate < SLOW:
            self.add("slow", f"{name} ({probe.rate:.3g})")
        if 0 < probe.sound_rate < DULL:
            self.add("dull", f"{name} ({probe.sound_rate / 1000:g})")
        for kind, found in (("mute", not probe.sound), ("hdr", probe.hdr), ("interlaced", probe.interlaced)):
            if found:
                self.add(kind, name)

    def few(self, kind: str) -> str:
        names = self.found[kind]
        return ", ".join(names[:REPORTED]) + (f" and {len(names) - REPORTED} more" if len(names) > REPORTED else "")

    def report(self, made: Sequence[Named]) -> str:
        sizes = Counter((clip.width, clip.height, clip.frames) for clip in made)
        seconds = sum(clip.frames for clip in made) / DEFAULT_FPS
        lines = [f"{len(made)} clips, {seconds:.1f} s in all; {self.encoded} encoded now, the rest was in the cache."]
        lines += [f"{count} of {w}x{h}, {frames} pictures" for (w, h, frames), count in sorted(sizes.items())]
        lines += [f"{words}: {self.few(kind)}" for kind, words in KINDS if self.found[kind]]
        return "\n".join(lines)
