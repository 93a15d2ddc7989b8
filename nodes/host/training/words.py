"""A run in words: a line a step, and a report at the end."""

from collections.abc import Sequence
from pathlib import Path

from ....mova_core.checkpoint.experts import EXPERT_FOLDERS
from ....mova_core.preflight import GIB, format_duration
from ....mova_core.training.run import Record, Run

RECENT_LOSSES = 20  # steps whose mean is shown and whose time the rest is told from


def line(run: Run, record: Record, peak: float | None) -> str:
    """`Step 120 of 1000, low: 28.1 s a step, 6 h 52 min to go; picture 0.081, sound 0.412`; `peak` in bytes of VRAM."""
    done, total = run.step, run.settings.steps
    recent = run.records[-RECENT_LOSSES:]
    pace = sum(each.seconds for each in recent) / len(recent)
    parts = [
        f"Step {done} of {total}, {record.expert}: {pace:.3g} s a step, {format_duration(pace * (total - done))} to go"
    ]
    parts += losses(run, recent)
    return "\n".join(parts + ([f"{peak / GIB:.1f} GiB of VRAM at most"] if peak else []))


def losses(run: Run, records: Sequence[Record]) -> list[str]:
    """Their means, a line for each expert that has any."""
    lines = []
    for expert in run.settings.experts:
        if own := [each for each in records if each.expert == expert]:
            video, audio = (sum(getattr(r, kind) for r in own) / len(own) for kind in ("video", "audio"))
            lines.append(f"{expert}-noise expert: picture {video:.4g}, sound {audio:.4g}")
    return lines


def report(run: Run, first: int, written: Sequence[Path], folder: Path, *, low: bool) -> str:
    """What was trained, of it what from step `first` on, last losses, those of fixed samples, and the files of today.

    Args:
        folder: where the state lies, from ComfyUI's output folder on.
    """
    settings, files = run.settings, ", ".join(path.name for path in written)
    seconds = sum(record.seconds for record in run.records)
    taken = f", {first} of them before this run" if first else ""
    plural = "sample" if settings.accumulate == 1 else "samples"
    lines = [
        f"{run.step} steps of {settings.accumulate} {plural} in {format_duration(seconds)}{taken}: "
        f"{', '.join(settings.parts)}, rank {settings.rank}, alpha {settings.alpha:g}, {settings.optimizer}",
        f"{'low-memory' if low else 'whole'} path, attention by PyTorch (others give no gradient)",
    ]
    lines += [f"last losses, {told}" for told in losses(run, run.records[-RECENT_LOSSES:])]
    for evaluation in (run.evaluations[:1] + run.evaluations[-1:])[: len(run.evaluations)]:
        told = ", ".join(
            f"{expert} picture {evaluation[expert][0]:.4g} sound {evaluation[expert][1]:.4g}"
            for expert in EXPERT_FOLDERS
            if expert in evaluation
        )
        when = f"after step {evaluation['step']}" if evaluation["step"] else "before training"
        lines.append(f"fixed samples {when}: {told}")
    if first == run.step:
        lines.insert(
            0, "Nothing was left to do: raise steps, set begin_anew, or give another name for another data set."
        )
    return "\n".join(
        [*lines, f"saved among the LoRAs: {files}", f"to go on with: {folder.as_posix()}, in the output folder"]
    )
