"""UMT5 for ComfyUI: the encoder of a published folder, and upstream's token ids for any umt5_xxl CLIP."""

from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.t5
import comfy.utils
import node_helpers
import tokenizers
import torch
from comfy import sd1_clip
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer
from torch import Tensor

from ....mova_core.checkpoint.detect import describe
from ....mova_core.checkpoint.files import check_part, check_small_file, read_json
from ....mova_core.checkpoint.load import first
from ....mova_core.checkpoint.weight_file import open_component
from ....mova_core.errors import CheckpointError, ConfigError
from ....mova_core.inputs.numbers import told
from ....mova_core.text import CONTEXT_ROWS, cap_tokens, clean_prompt
from ..keys import AUDIO_CONTEXT
from ..types import Conditioning, Values

NAME = "umt5xxl"  # the key under which ComfyUI keeps this encoder's tokens, whatever its size
ACTIVATIONS = {"gelu_new": "gelu_pytorch_tanh", "gelu_pytorch_tanh": "gelu_pytorch_tanh"}
ENCODER_SIZES = ("d_model", "d_ff", "num_heads", "num_layers", "d_kv", "vocab_size")
FIXED = {"model_type": "umt5", "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}


class FastTokenizer:
    """A tokenizer.json, called as ComfyUI calls tokenizers."""

    def __init__(self, path: str) -> None:
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # it has no kind of its own
            raise CheckpointError(f"{path} is no tokenizer ({error!s:.100}). Download it again") from error

    @classmethod
    def from_pretrained(cls, path: str, **_: object) -> "FastTokenizer | SPieceTokenizer":
        return SPieceTokenizer(path) if path.endswith(".model") else cls(path)

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": self.tokenizer.encode(text).ids}

    def get_vocab(self) -> dict[str, int]:
        return self.tokenizer.get_vocab()

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


def _tokenizer_file(folder: Path) -> str:
    for name in ("tokenizer.json", "spiece.model"):
        if (folder / name).is_file():
            check_small_file(folder / name)
            return str(folder / name)
    raise CheckpointError(
        f"{folder} holds neither tokenizer.json nor spiece.model. Download the tokenizer folder again"
    )


def _encoder_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    for key, wanted in FIXED.items():
        if config.get(key, wanted) != wanted:
            raise ConfigError(f"{path}: {key} is {config[key]!r}; ComfyUI's UMT5 implements {wanted!r}")
    if config.get("dense_act_fn") not in ACTIVATIONS:
        raise ConfigError(f"{path}: activation {config.get('dense_act_fn')!r} is not implemented; UMT5 uses gelu_new")
    absent = [key for key in ENCODER_SIZES if type(config.get(key)) is not int or config[key] < 1]
    if absent:
        raise ConfigError(f"{path} does not say {', '.join(absent)}. Download the file again")
    return {**config, "dense_act_fn": ACTIVATIONS[config["dense_act_fn"]], "model_type": "umt5"}


def load_clip(folder: Path, *, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The CLIP of a published folder: text_encoder (any size its config.json states) and tokenizer.

    Raises:
        CheckpointError, ConfigError: missing, damaged, or not UMT5.
    """
    for part in ("text_encoder", "tokenizer"):
        check_part(folder / part)
    config = _encoder_config(folder / "text_encoder" / "config.json")
    vocabulary = _tokenizer_file(folder / "tokenizer")
    tensors = open_component(folder, "text_encoder").plain(lambda path: comfy.utils.load_torch_file(str(path)))
    tied = tensors.pop("encoder.embed_tokens.weight", None)  # either name may be stored
    if tied is not None:
        tensors.setdefault("shared.weight", tied)
    table = tensors.get("shared.weight")
    if table is None or tuple(table.shape) != (config["vocab_size"], config["d_model"]):
        kind = describe({key: tuple(value.shape) for key, value in tensors.items() if value is not None})
        raise CheckpointError(
            f"{folder / 'text_encoder'} holds {kind}, without the table of {config['vocab_size']} x {config['d_model']} "
            "that its config.json states. Download that part again"
        )

    clip = _empty_clip(config, vocabulary, comfy.utils.calculate_parameters(tensors), disable_dynamic)
    clip.patcher.cached_patcher_init = (clip_patcher, (folder,))
    _fill(clip, {f"{NAME}.transformer.{k}": v for k, v in tensors.items()}, folder / "text_encoder")
    return clip


def _empty_clip(config: Values, vocabulary: str, parameters: int, disable_dynamic: bool) -> comfy.sd.CLIP:
    """ComfyUI's CLIP of an encoder of these sizes, without its weights."""
    target = comfy.supported_models_base.ClipTarget(_tokens(vocabulary, config["d_model"]), _encoder(config))
    return comfy.sd.CLIP(target, parameters=parameters, disable_dynamic=disable_dynamic)


def _encoder(config: Values) -> type[sd1_clip.SD1ClipModel]:
    """ComfyUI's text model around T5 of these sizes: it makes an object of a class, so sizes come as a class."""

    class Encoder(sd1_clip.SDClipModel):
        def __init__(
            self,
            device: str = "cpu",
            dtype: torch.dtype | None = None,
            model_options: Values | None = None,
            **_: object,
        ) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                textmodel_json_config=config,
                special_tokens={"end": 1, "pad": 0},
                model_class=comfy.text_encoders.t5.T5,
                enable_attention_masks=True,
                zero_out_masked=True,
                model_options=model_options or {},
            )

    class Model(sd1_clip.SD1ClipModel):
        def __init__(
            self, device: str = "cpu", dtype: torch.dtype | None = None, model_options: Values | None = None
        ) -> None:
            options = model_options or {}
            super().__init__(device=device, dtype=dtype, name=NAME, clip_model=Encoder, model_options=options)

    return Model


def _tokens(vocabulary: str, width: int) -> type[sd1_clip.SD1Tokenizer]:
    """ComfyUI's tokenizer of a vocabulary's file; a class, as above."""

    class Vocabulary(sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: str | None = None, tokenizer_data: Values | None = None) -> None:
            super().__init__(
                vocabulary,
                pad_with_end=False,
                embedding_directory=embedding_directory,
                embedding_size=width,
                embedding_key=NAME,
                tokenizer_class=FastTokenizer,
                has_start_token=False,
                pad_to_max_length=False,
                max_length=99999999,
                min_length=CONTEXT_ROWS,
                pad_token=0,
            )

    class Tokens(sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: str | None = None, tokenizer_data: Values | None = None) -> None:
            super().__init__(embedding_directory, tokenizer_data or {}, clip_name=NAME, tokenizer=Vocabulary)

    return Tokens


def _fill(clip: comfy.sd.CLIP, tensors: dict[str, Tensor], place: Path) -> None:
    """Give an empty CLIP its weights.

    Raises:
        CheckpointError: they are not those that its config.json states.
    """
    try:
        missing, unknown = clip.load_sd(tensors, full_model=True)
    except RuntimeError as error:  # torch's word for weights of other shapes
        raise CheckpointError(
            f"{place} does not fit its config.json: {error!s:.200}. Download that part again"
        ) from error
    missing = [key for key in missing if not key.endswith("logit_scale")]
    if missing or unknown:
        raise CheckpointError(
            f"{place} does not fit its config.json: {len(missing)} weights missing "
            f"(first: {first(missing)}), {len(unknown)} unknown (first: {first(unknown)})"
        )


def clip_patcher(folder: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """What ComfyUI asks for again, to have the text encoder on another device."""
    return load_clip(folder, disable_dynamic=disable_dynamic).patcher


def prompt_ids(clip: comfy.sd.CLIP, prompt: str) -> tuple[list[int], int]:
    """Upstream's token ids of a prompt: cleaned, at most 512 with the end token; and how many were cut.

    Raises:
        CheckpointError: the CLIP is not UMT5.
    """
    tokenizer = getattr(check_clip(clip).tokenizer, clip.tokenizer.clip).tokenizer
    return cap_tokens(tokenizer(clean_prompt(prompt))["input_ids"])


def check_clip(clip: object) -> comfy.sd.CLIP:
    """Accept UMT5 only.

    Raises:
        CheckpointError: the CLIP is another.
    """
    name = getattr(getattr(clip, "tokenizer", None), "clip_name", None)
    if name != NAME:
        raise CheckpointError(
            f"this CLIP is {name!r}; MOVA reads UMT5-XXL. Use the CLIP of 'MOVA Loader', or 'Load CLIP' with a "
            "umt5_xxl file and type 'wan'"
        )
    own = getattr(clip.tokenizer, str(getattr(clip.tokenizer, "clip", None)), None)  # type: ignore[attr-defined]
    if not callable(getattr(own, "tokenizer", None)):
        raise CheckpointError(f"{told(clip)} is no CLIP of ComfyUI; use the CLIP of 'MOVA Loader'")
    return clip


def encode(clip: comfy.sd.CLIP, ids: list[int]) -> Conditioning:
    """CONDITIONING of token ids: 512 rows, those past the end token zero and attended to."""
    padded = ids + [0] * (CONTEXT_ROWS - len(ids))
    return clip.encode_from_tokens_scheduled({NAME: [[(token, 1.0) for token in padded]]})


def with_audio_prompt(conditioning: Conditioning, sound: Conditioning) -> Conditioning:
    """A copy of a CONDITIONING whose audio tower reads the prompt of `sound`, another CONDITIONING."""
    return node_helpers.conditioning_set_values(conditioning, {AUDIO_CONTEXT: rows(sound)})


def rows(conditioning: Conditioning) -> Tensor:
    """The (1, S, width) embeddings of the first entry of a CONDITIONING."""
    return conditioning[0][0]
