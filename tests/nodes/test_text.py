"""Prompts: the ids MOVA was trained on, from either tokenizer, through our node and the stock one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, check_finite

pytestmark = needs_comfy

PROMPTS = (
    "a cat plays the piano while rain falls on a tin roof",
    'A woman says "Hello there!"   to the camera.\n\nThe audio shows rain (and wind), 48 kHz.',
    "Tom &amp; Jerry: 100% slow-motion; don't blink",
    "x",
)


@pytest.fixture(scope="module")
def wan_clip(diffusers: Path, pack: Pack) -> Any:
    """As much of 'Load CLIP' (type wan) as tokenizes, with the tiny vocabulary."""
    from comfy.text_encoders.wan import WanT5Tokenizer

    vocabulary = torch.frombuffer(
        bytearray((diffusers / "tiny/tokenizer/spiece.model").read_bytes()), dtype=torch.uint8
    )

    class WanClip:
        tokenizer = WanT5Tokenizer(tokenizer_data={"spiece_model": vocabulary})

    return WanClip()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_stock_wan_clip_and_the_folder_give_the_same_ids(
    scene: Scene, pack: Pack, wan_clip: Any, prompt: str
) -> None:
    ids = pack.module("nodes.host.loaders.text").prompt_ids
    assert ids(wan_clip, prompt) == ids(scene.clip, prompt)
    assert len(ids(scene.clip, prompt)[0]) > 1


def test_a_prompt_is_cleaned_before_it_is_read(run: Run, scene: Scene) -> None:
    messy, clean = (
        run("MOVATextEncode", clip=scene.clip, prompt=prompt, negative_prompt="")[0][0][0]
        for prompt in ("  Tom  &amp;amp; “Jerry”\n\n run ", 'Tom & "Jerry" run')
    )
    assert torch.equal(messy, clean)


def test_parentheses_are_text_and_not_weights(run: Run, scene: Scene, pack: Pack) -> None:
    ids = pack.module("nodes.host.loaders.text").prompt_ids
    tokenizer = scene.clip.tokenizer
    read = getattr(tokenizer, tokenizer.clip).tokenizer("a (cat:1.2)")["input_ids"]
    assert ids(scene.clip, "a (cat:1.2)") == (read, 0)
    weighted, plain = (
        run("MOVATextEncode", clip=scene.clip, prompt=prompt, negative_prompt="")[0][0][0]
        for prompt in ("a (cat:1.2)", "a cat")
    )
    assert not torch.equal(weighted, plain)


def test_the_prompt_is_512_rows_and_zero_beyond_its_end(run: Run, scene: Scene, pack: Pack) -> None:
    ids, _ = pack.module("nodes.host.loaders.text").prompt_ids(scene.clip, PROMPTS[0])
    rows = run("MOVATextEncode", clip=scene.clip, prompt=PROMPTS[0], negative_prompt="")[0][0][0]
    assert rows.shape == (1, 512, 32)
    assert rows[:, : len(ids)].abs().sum(-1).min() > 0
    assert not rows[:, len(ids) :].any()


def test_the_stock_text_node_works_on_the_folders_clip(run: Run, scene: Scene) -> None:
    text = {name: run("CLIPTextEncode", clip=scene.clip, text=name)[0] for name in ("positive", "negative")}
    condition = scene.positive[0][1]
    for entry in text.values():
        entry[0][1].update({k: condition[k] for k in ("concat_latent_image", "concat_mask", "frame_rate")})
    made = run("KSampler", model=scene.model, latent_image=scene.latent, **text, steps=2, cfg=3.0)[0]
    check_finite(made, scene.latent)


def test_the_stock_text_node_agrees_on_plain_words(run: Run, scene: Scene) -> None:
    stock = run("CLIPTextEncode", clip=scene.clip, text=PROMPTS[0])[0][0][0]
    ours = run("MOVATextEncode", clip=scene.clip, prompt=PROMPTS[0], negative_prompt="")[0][0][0]
    torch.testing.assert_close(stock[:, : ours.shape[1]], ours)
