"""What every node of the pack is: its inputs are checked against its own schema before it runs."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import MovaError
from .host import messages
from .host.logs import encodable
from .inputs import checked

OUT_OF_RAM = (
    "DefaultCPUAllocator"  # how torch says it; a device's memory has an error of its own, which ComfyUI explains
)
SHORT_OF_RAM = (
    "this takes more memory (RAM) than there is{error}. Give fewer pictures, a smaller size or a shorter sound at once; "
    "close what else needs memory"
)


class MovaNode(io.ComfyNode):
    """A node. A subclass gives `define_schema` and `run`; ComfyUI calls `execute`."""

    LISTS: tuple[str, ...] = ()  # where ComfyUI gives every input as a list: those of which the node wants the list

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """`run` on checked values: AUDIO as a `Sound` or None, IMAGE as (B, H, W, 3) float32 in 0..1, numbers in range.

        Raises:
            MovaError: a value that its input does not take.
        """
        try:
            schema = cls.define_schema()
            if schema.is_input_list:
                values = {name: value if name in cls.LISTS else cls._single(value) for name, value in values.items()}
            return cls.run(**checked(schema.inputs, values))
        except MovaError as error:
            told = encodable(
                messages.about_shot(str(error))
            )  # ComfyUI logs it, and a console that cannot write it kills the run's thread
            if told != str(error):
                raise type(error)(told) from None
            raise
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and OUT_OF_RAM not in str(error):
                raise
            raise MovaError(SHORT_OF_RAM.format(error=f" ({error!s:.150})" if str(error) else "")) from error

    @staticmethod
    def _single(value: Any) -> Any:
        """The first of a list; what is no list, or empty, as it is, for the check to name."""
        return value[0] if isinstance(value, list) and value else value

    @classmethod
    def run(cls, *_: Any, **values: Any) -> io.NodeOutput:
        """What the node does."""
        raise NotImplementedError
