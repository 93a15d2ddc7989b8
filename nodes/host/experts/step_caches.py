"""ComfyUI's EasyCache and LazyCache on a model of two experts and two streams.

Both nodes decide from how much the last evaluations changed, and add a kept difference where they skip one. Neither
knows that another expert has taken over, nor that the audio latent has more channels than the video's.
"""

from typing import Protocol

from torch import Tensor

from ..keys import BOUNDARY, Options
from ..types import Executor


class StepCache(Protocol):
    """What both nodes keep of a run, in this place."""

    total_steps_skipped: int
    relative_transformation_rate: float | None

    def reset(self) -> object: ...


def renew(executor: Executor, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> object:
    """PREDICT_NOISE, outermost: prepare the cache of this run, and empty it when the expert changes."""
    cache = model_options.get("transformer_options", {}).get("easycache")
    if cache is not None:
        patcher = executor.class_obj.model_patcher
        sizes = patcher.model.sizes
        cache.output_channels = max(sizes.video.out_channels, sizes.audio.out_channels)
        boundary = patcher.get_attachment(BOUNDARY)
        low = boundary is not None and bool((timestep * 1000.0).max() < boundary * 1000.0)
        if getattr(cache, "mova_low", low) is not low:
            forget(cache)
        cache.mova_low = low
    return executor(x, timestep, model_options, seed)


def forget(cache: StepCache) -> None:
    """Empty a cache, but for its count of skipped steps."""
    skipped = cache.total_steps_skipped
    cache.reset()
    cache.total_steps_skipped = skipped
    cache.relative_transformation_rate = None  # reset leaves 0: no change would ever be expected, and all steps skipped
