"""Log lines that every console can take.

A console in a narrow encoding (a desktop app's pipe, `> log.txt` on Windows) cannot write every name a user gives a file.
ComfyUI's handlers are strict: such a line raises within the run and kills the thread that works. So before a record
leaves this pack, what one of its handlers could not write stands in it as an escape.
"""

import logging
import traceback
from collections.abc import Iterator

LOGGER = logging.getLogger("mova")


class Encodable(logging.Filter):
    """A filter that lets everything pass, in characters that all handlers can write."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = encodable(record.getMessage()), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = encodable("".join(traceback.format_exception(record.exc_info[1])).rstrip())
        return True


def guard() -> None:
    """Have every record of this pack go through the filter, once however often it is asked for."""
    if not any(isinstance(known, Encodable) for known in LOGGER.filters):
        LOGGER.addFilter(Encodable())


def encodable(text: str) -> str:
    """`text`, with escapes for what a handler's stream could not write."""
    for encoding, errors in _streams():
        try:
            text.encode(encoding, errors)
        except UnicodeError:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _streams() -> Iterator[tuple[str, str]]:
    """Encoding and its strictness of each handler that gets this pack's records."""
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        for handler in logger.handlers:
            stream = getattr(handler, "stream", None)
            encoding = getattr(stream, "encoding", None)
            if isinstance(encoding, str):
                yield encoding, getattr(stream, "errors", None) or "strict"
        logger = logger.parent if logger.propagate else None
