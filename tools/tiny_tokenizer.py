"""A small real tokenizer in both published forms: `spiece.model` and the `tokenizer.json` that says the same.

A Unigram vocabulary of some word pieces, every printable ASCII character and all 256 bytes, so any prompt has tokens.
Identifiers: <pad> 0, </s> 1, <unk> 2. The two files give equal identifiers for any text free of the literal names of
special tokens ("</s>", "<0x41>"), which only `tokenizer.json` recognises, as the published ones do.
"""

import io
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from tools.json_files import write_json

SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # in the order of their identifiers
MAXIMUM_TOKENS = 512
CORPUS = (
    "a cat plays the piano while rain falls on a tin roof",
    "the quick brown fox jumps over the lazy dog",
    "a woman says hello to the camera and smiles",
    "a dog barks, then the train passes",
    "slow motion, low quality, static, blurry, subtitles",
)


def write_tokenizer(folder: Path) -> int:
    """Write the four files transformers' T5TokenizerFast reads; return the number of identifiers in use."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = train_pieces()
    (folder / "spiece.model").write_bytes(pieces)
    fast = fast_tokenizer(pieces)
    (folder / "tokenizer.json").write_bytes(fast.to_str(pretty=True).encode())
    write_json(folder / "tokenizer_config.json", _tokenizer_config())
    write_json(folder / "special_tokens_map.json", {name: _added_token(token) for name, token in SPECIAL.items()})
    return fast.get_vocab_size()


def train_pieces() -> bytes:
    """A SentencePiece model, the same bytes every time. Text is taken as it comes, apart from runs of spaces."""
    ascii_characters = " ".join(chr(code) for code in range(ord("!"), ord("~") + 1))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((*CORPUS * 4, ascii_characters)),
        model_writer=model,
        model_type="unigram",
        vocab_size=512,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def fast_tokenizer(pieces: bytes) -> Tokenizer:
    """The same vocabulary, scores and treatment of spaces as the SentencePiece model; ends every text with </s>."""
    model = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    vocabulary = [(model.id_to_piece(index), model.get_score(index)) for index in range(len(model))]
    fast = Tokenizer(Unigram(vocabulary, unk_id=model.unk_id(), byte_fallback=True))
    fast.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", model.eos_id())]
    )
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    fast.add_special_tokens(list(SPECIAL.values()))
    return fast


def _added_token(token: str) -> dict[str, Any]:
    return {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _tokenizer_config() -> dict[str, Any]:
    return {
        **SPECIAL,
        "added_tokens_decoder": {
            str(index): _added_token(token) | {"special": True} for index, token in enumerate(SPECIAL.values())
        },
        "additional_special_tokens": [],
        "clean_up_tokenization_spaces": False,
        "extra_ids": 0,
        "legacy": False,
        "model_max_length": MAXIMUM_TOKENS,
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
    }
