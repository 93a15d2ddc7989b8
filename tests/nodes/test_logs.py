"""A log line with a user's text survives every console, and so does a run that fails with one."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene

pytestmark = needs_comfy

NAME = "\u98a8\u683c high_noise \U0001f600"  # of two alphabets that no code page has together


@pytest.fixture(params=["cp1252", "ascii", "cp437", "utf-8", "utf-16", "shift_jis"])
def console(
    request: pytest.FixtureRequest, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, io.BytesIO]]:
    """ComfyUI's strict console in a narrow encoding, for what is logged and for what goes wrong then."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=request.param, errors="strict", write_through=True)
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger().addHandler(handler)
    pack.module("nodes.host.logs").guard()
    yield request.param, written
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("text", [NAME, "\udcff lone", "plain"])
def test_a_line_is_written_in_what_the_console_has(console: tuple[str, io.BytesIO], text: str) -> None:
    encoding, written = console
    log = logging.getLogger("mova")
    log.warning("%s loaded", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("with a traceback")
    found = written.getvalue().decode(encoding)
    assert found.count(text.encode(encoding, "backslashreplace").decode(encoding)) == 2
    assert "Logging error" not in found
    assert "ValueError" in found


def test_a_console_that_has_everything_gets_everything(pack: Pack) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        assert pack.module("nodes.host.logs").encodable(NAME) == NAME
    finally:
        logging.getLogger().removeHandler(handler)


def test_a_node_that_fails_with_a_name_fails_in_what_the_console_has(
    run: Run, scene: Scene, pack: Pack, console: tuple[str, io.BytesIO]
) -> None:
    encoding, written = console
    ones = dict.fromkeys(
        ("strength", "strength_video", "strength_audio", "strength_audio_to_video", "strength_video_to_audio"), 1.0
    )
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="there is no file") as raised:
        run("MOVALoraLoader", model=scene.model, lora_name=NAME, expert="auto", **ones)
    logging.getLogger().error("ComfyUI says: %s", raised.value)
    assert "there is no file" in written.getvalue().decode(encoding)
