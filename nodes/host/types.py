"""ComfyUI's values by type: what stands behind LATENT, CONDITIONING, wrappers and patches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypedDict

from comfy.nested_tensor import NestedTensor
from torch import Tensor


class Latent(TypedDict, total=False):
    """A LATENT: both streams, what a mask keeps of them, which noise of a batch, and what a node of ours knew of the clip."""

    samples: NestedTensor
    noise_mask: NestedTensor | Tensor
    batch_index: Sequence[int]
    frame_rate: float
    audio_steps_per_second: float


Values: TypeAlias = dict[str, Any]
"""Of a conditioning entry, of what a node hands on to another: whatever anybody puts there."""
Conditioning: TypeAlias = list[tuple[Tensor, Values]]
"""A CONDITIONING: prompts, (1, S, width) each, with their values."""
Conditions: TypeAlias = list[Values]
"""A conditioning as samplers have it: its values, with what the model makes of them."""
Shapes: TypeAlias = Sequence[Sequence[int]]
"""Of the streams of a packed latent."""
Link: TypeAlias = list[object] | str
"""Of a workflow: a node's id and the number of its output; empty for none."""
Key: TypeAlias = str | tuple[object, ...]
Patches: TypeAlias = Mapping[Key, object]
"""Weight's name, or name and place in the weight -> ComfyUI's patch."""


class DynamicPrompt(Protocol):
    """A workflow that is being run, expanded nodes included."""

    def get_node(self, node_id: str) -> Values: ...


class Executor(Protocol):
    """What a wrapper of ComfyUI is given: the rest of the chain, and whose method it is."""

    class_obj: Any

    def __call__(self, *args: object, **kwargs: object) -> Any: ...


Wrapper: TypeAlias = Callable[..., Any]
