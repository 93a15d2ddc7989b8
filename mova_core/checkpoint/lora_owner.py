"""Words for a LoRA, or a key of one, that has no target in the model: which model it is probably for."""

import re
from collections import Counter
from collections.abc import Mapping

from ..errors import CheckpointError
from .detect import Shapes, describe
from .lora_keys import AUDIO_TOWER, LONGEST_KEY, OTHER_KINDS, split_key, unwrapped
from .lora_names import audio_in_name

NO_TARGET = (
    (
        re.compile(r"img_emb|[kv]_img|image_embedder|add_[kv]_proj|norm_added"),
        "Wan 2.1's picture encoder; MOVA has none",
    ),
    (
        re.compile(r"^(?:base_model\.model\.)?(lora_te|te\d?[_.]|text_encoders?[_.]|clip)"),
        "of a text encoder; only the diffusion model is patched",
    ),
)
OTHER_FORMS = {
    **dict.fromkeys(("glora", "a1", "a2", "b1", "b2"), "GLoRA"),
    **dict.fromkeys(("hada_t", "lokr_t", "lora_mid"), "a Tucker form"),
    **dict.fromkeys(("boft", "rescale"), "BOFT"),
    "oft": "OFT",
    "vera": "VeRA",
    "ia3": "IA3",
    "lora_E": "AdaLoRA",
    "set_weight": "a whole new weight",
    "modules_to_save": "a whole new weight",
    "reshape_weight": "a wider layer",
}
OWNERS: tuple[tuple[str, str], ...] = (  # the first pattern found in a key names the likely model of a foreign LoRA
    (r"vace_blocks", "Wan VACE"),
    (r"audio_attn1|audio_to_video_attn|video_to_audio_attn|text_embedding_projection", "LTX-2"),
    (r"token_refiner|double_blocks\.\d+\.img_attn_(qkv|proj)\.|img_mlp[._]fc1|txt_mlp[._]fc1", "HunyuanVideo"),
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux"),
    (r"transformer_blocks[._]\d+[._](img_mlp|txt_mlp|img_mod)", "Qwen-Image"),
    (r"lora_te2|input_blocks|output_blocks|down_blocks|up_blocks|mid_block", "Stable Diffusion (SDXL or 1.5)"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"transformer_blocks[._]\d+[._]attn[12]", "LTX Video"),
    (r"^(lora_te|text_encoder)", "a text encoder alone"),
)
WAN_WIDTHS = {1536: "Wan 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B", 2048: "a model of Wan's kind"}
QUERY = re.compile(r"blocks[._]\d+[._](self_attn|attn1)[._](to_)?q\.lora_(A|down)")


def short(text: str, length: int = 80) -> str:
    """A name out of a file, fit for a line of a message: its beginning and end, nothing that breaks lines."""
    text = text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 2 + 3 :]}"
    return "".join(c if c.isprintable() else "?" for c in text)


def why_no_target(key: str) -> str:
    """The reason a key has no target, as far as the key tells."""
    if len(key) > LONGEST_KEY:
        return "a name longer than any layer's"
    for pattern, reason in NO_TARGET:
        if pattern.search(unwrapped(key)):
            return reason
    return other_form(key) or "the model has no such layer"


def other_form(key: str) -> str:
    """What a key says of a form of change that is not applied; empty where it says none."""
    found = OTHER_KINDS.search(key)
    return f"{OTHER_FORMS[found['kind']]}, which is not applied; LoRA, DoRA, LoHa and LoKr are" if found else ""


def refuse(shapes: Shapes, dropped: Mapping[str, str], where: str, parameters: Shapes) -> CheckpointError:
    """The error for a file of which nothing fits a model with these parameters."""
    if not shapes:
        return CheckpointError(f"{short(where, 200)} holds no tensors. Save it again, or download it again")
    ((reason, count),) = Counter(dropped.values()).most_common(1)
    first = next(key for key, why in dropped.items() if why == reason)
    usual = {key: shape for key, shape in shapes.items() if len(key) <= LONGEST_KEY}
    video, audio = (parameters.get(f"{tower}blocks.0.self_attn.q.weight", (0, 0))[1] for tower in ("", AUDIO_TOWER))
    likely = _owner(usual, video, 0 if audio_in_name(where) else audio)
    return CheckpointError(
        f"{short(where, 200)} does not fit MOVA{': ' if likely else ''}{likely}. None of its {len(shapes)} keys has a "
        f"target ({count}, first {short(first)}: {short(reason, 160)}). "
        "Choose a LoRA trained on MOVA or on Wan 2.2 A14B"
    )


def _owner(shapes: Shapes, video: int, audio: int) -> str:
    """Words on which model a LoRA that fits nothing was probably made for; empty where it may well be for this one.

    `video` is the width of the video tower, `audio` that of the audio tower if the file's name does not name it.
    """
    for pattern, name in OWNERS:
        if any(re.search(pattern, key) for key in shapes):
            return f"it looks like a LoRA of {name}"
    widths = sorted({shape[1] for key, shape in shapes.items() if QUERY.search(key) and len(shape) > 1})
    if widths and widths[0] == video:
        return ""
    if widths:
        name = WAN_WIDTHS.get(widths[0], f"a Wan-shaped model of width {widths[0]}")
        tower = ". MOVA's audio tower has that width too: if it is one of those, put audio_dit into the file's name"
        return f"it looks like a LoRA of {name}{tower if widths[0] == audio else ''}"
    if not any(split_key(key) or OTHER_KINDS.search(key) for key in shapes):
        return f"it is no LoRA but {describe(shapes)}"
    return "no key of it is known" if all(why_no_target(key).endswith("such layer") for key in shapes) else ""
