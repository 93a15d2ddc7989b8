"""What a user, a file or a caller can get wrong. Each message says what came, what was wanted, what to do."""


class MovaError(ValueError):
    """Base of every error this package raises on purpose.

    Its module is "MOVA": ComfyUI shows it before the message, and else it is the path of the folder the pack lies in.
    """

    __module__ = "MOVA"

    def __init_subclass__(cls) -> None:
        cls.__module__ = MovaError.__module__


class ConfigError(MovaError):
    """A configuration that is inconsistent, or asks for what is not implemented."""


class ShapeError(MovaError):
    """A size, frame count or tensor shape the model cannot take."""


class CheckpointError(MovaError):
    """A file or folder that is missing, damaged, or not the model it was taken for."""


class PatchError(MovaError):
    """What another pack put on a model, and the model cannot run as it is."""


class NotFiniteError(MovaError):
    """NaN or infinity where numbers were wanted."""
