"""What every node of the pack is: its inputs are checked against its own schema before it runs."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import MovaError
from .host import messages
from .host.logs import encodable
from .inputs import checked


class MovaNode(io.ComfyNode):
    """A node. A subclass gives `define_schema` and `run`; ComfyUI calls `execute`."""

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """`run` on checked values: AUDIO as a `Sound` or None, IMAGE as (B, H, W, 3) float32 in 0..1, numbers in range.

        Raises:
            MovaError: a value that its input does not take.
        """
        try:
            return cls.run(**checked(cls.define_schema().inputs, values))
        except MovaError as error:
            told = encodable(
                messages.about_shot(str(error))
            )  # ComfyUI logs it, and a console that cannot write it kills the run's thread
            if told != str(error):
                raise type(error)(told) from None
            raise

    @classmethod
    def run(cls, **values: Any) -> io.NodeOutput:
        """What the node does."""
        raise NotImplementedError
