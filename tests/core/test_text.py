"""Prompts are cleaned as in training, end where the tokenizer would end them, and fill 512 rows."""

import json

import pytest
import torch

from mova_core import text
from mova_core.errors import ShapeError
from tests.golden import HERE


@pytest.mark.parametrize("stage", ["basic_clean", "whitespace_clean"])
def test_each_stage_of_cleaning_equals_the_official_one(stage):
    for pair in json.loads((HERE / "f_text_clean.json").read_text(encoding="utf-8"))["pairs"]:
        assert getattr(text, stage)(pair["input"]) == pair[stage]


def test_cleaned_prompts_equal_the_official_ones():
    for pair in json.loads((HERE / "f_text_clean.json").read_text(encoding="utf-8"))["pairs"]:
        assert text.clean_prompt(pair["input"]) == pair["prompt_clean"]


def test_cleaning_twice_changes_nothing_more():
    for prompt in (text.NEGATIVE_PROMPT, " two\n lines ", "“curly” &amp;lt;tag&amp;gt;"):
        once = text.clean_prompt(prompt)
        assert text.clean_prompt(once) == once


def test_entities_escaped_twice_are_resolved_beside_real_tags():
    assert text.clean_prompt("<b> &amp;lt;i&amp;gt;") == "<b> <i>"  # with a "<" in the text, ftfy leaves entities alone


def test_the_negative_prompt_is_a_list_without_repetition():
    items = text.NEGATIVE_PROMPT.split("\uff0c")
    assert len(set(items)) == len(items) == 17
    assert all(items)


@pytest.mark.parametrize("tokens", [0, 1, 510, 511])
def test_prompts_that_fit_are_kept_whole(tokens):
    ids = [*range(100, 100 + tokens), text.EOS]
    assert text.cap_tokens(ids) == (ids, 0)


@pytest.mark.parametrize("tokens", [512, 513, 2000])
def test_longer_prompts_keep_511_tokens_and_still_end(tokens):
    ids, cut = text.cap_tokens([*range(100, 100 + tokens), text.EOS])
    assert ids == [*range(100, 611), text.EOS]
    assert cut == tokens - 511


def test_context_fills_512_rows_with_zeros_below():
    context = torch.randn(2, 7, 8, dtype=torch.bfloat16)
    padded = text.pad_context(context)
    assert padded.shape == (2, 512, 8)
    assert padded.dtype == torch.bfloat16
    assert torch.equal(padded[:, :7], context)
    assert not padded[:, 7:].any()
    assert torch.equal(text.pad_context(padded), padded)


def test_context_of_another_form_is_refused():
    with pytest.raises(ShapeError, match="513 rows"):
        text.pad_context(torch.zeros(1, 513, 8))
    with pytest.raises(ShapeError, match="batch, rows, width"):
        text.pad_context(torch.zeros(512, 8))
