"""The prompt builder, the meter, and choosing among drafts."""

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import FPS, streams

pytestmark = needs_comfy

SCRIPT = {
    "scene": "A kitchen",
    "speakers": "Anna: a cook; cheerful",
    "lines": "Anna: Dinner is ready.",
    "sounds": "a sizzling pan",
}


def test_the_built_prompt_goes_into_the_text_encoder_and_counts_its_tokens(run, scene):
    prompt, report = run("MOVAPromptBuilder", **SCRIPT, clip=scene.clip)
    assert prompt.startswith("This video has no subtitles. A kitchen.")
    assert "fits" in report
    assert "of 512 tokens" in report
    positive, _ = run("MOVATextEncode", clip=scene.clip, prompt=prompt)
    assert positive[0][0].shape[1] == 512


def test_speech_too_long_for_the_clip_is_reported(run):
    _, report = run("MOVAPromptBuilder", **(SCRIPT | {"lines": "Anna: " + "word " * 90}))
    assert "too long" in report


def test_the_meter_reports_a_line_a_clip_and_the_best_score(run):
    images, audio = torch.rand(18, 16, 16, 3), {"waveform": 0.1 * torch.randn(2, 1, 18000), "sample_rate": 48000}
    report, score = run("MOVAMeter", images=images, audio=audio, fps=FPS)
    assert len(report.splitlines()) == 2
    assert f"{score:+.2f}" in report


def test_the_best_draft_is_picked_alone(run, scene):
    video, audio = (stream.repeat(2, *(1 for _ in stream.shape[1:])) for stream in streams(scene.latent))
    video[1], audio[1] = 1, 2
    latent = {**scene.latent, "samples": scene.latent["samples"].__class__((video, audio)), "batch_index": [0, 1]}
    loud, silent = 0.2 * torch.randn(1, 1, 18000), torch.zeros(1, 1, 18000)
    drafts = {"waveform": torch.cat((silent, loud)), "sample_rate": 48000}
    picked, index, report = run("MOVAPickDraft", latent=latent, images=torch.rand(18, 48, 80, 3), audio=drafts)
    assert index == 1
    assert [stream.shape[0] for stream in streams(picked)] == [1, 1]
    assert streams(picked)[1].unique().tolist() == [2.0]
    assert "batch_index" not in picked
    assert report.startswith("draft 1 of 2 is best")


def test_pictures_that_do_not_share_out_are_refused(run):
    audio = {"waveform": torch.zeros(2, 1, 18000), "sample_rate": 48000}
    with pytest.raises(ValueError, match="one 'MOVA Decode'"):
        run("MOVAMeter", images=torch.rand(17, 16, 16, 3), audio=audio, fps=FPS)
