"""Words for a LoRA, or a key of one, that has no target in the model: which model it is probably for."""

import re
from collections import Counter
from collections.abc import Mapping

from ..errors import CheckpointError
from .detect import UNKNOWN, Shapes, describe
from .lora_keys import AUDIO_TOWER, LONGEST_KEY, OTHER_KINDS, Names, split_key, unwrapped
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
OWN_WEIGHT = re.compile(r"(?:base_layer\.)?(?:weight|bias|modulation)")
SETTING = re.compile(r"(?:lora_|network_)?(?:rank|r|dim|dropout)(?:\.\w+)?")
OWN = "a layer's own weight, not a change of it"
NO_LAYER = "the model has no such layer"
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


def why_no_target(key: str, names: Names) -> str:
    """The reason that a key is of no layer, as far as the key tells."""
    name = unwrapped(key)
    for pattern, reason in NO_TARGET:
        if pattern.search(name):
            return reason
    if names.find(name)[0] in names.parameters:
        return OWN
    if other := OTHER_KINDS.search(name):
        return _other_form(other["kind"])
    split = split_key(key)
    start = names.unknown_start(split.stem if split else name)
    return f"its name begins with {short(start, 40)!r}, which is not known" if start else NO_LAYER


def kind_reason(kind: str) -> tuple[str, bool]:
    """Why a tensor of a kind that is not read is left out, and whether its layer can be read without it."""
    if OWN_WEIGHT.fullmatch(kind):
        return OWN, True
    if SETTING.fullmatch(kind):
        return "a setting that is not needed", True
    if other := OTHER_KINDS.search(f".{kind}"):
        return _other_form(other["kind"]), False
    return f"a kind that is not known ({short(kind, 40)}); LoRA, DoRA, LoHa and LoKr are", False


def _other_form(kind: str) -> str:
    return f"{OTHER_FORMS[kind]}, which is not applied; LoRA, DoRA, LoHa and LoKr are"


def refuse(shapes: Shapes, dropped: Mapping[str, str], where: str, parameters: Shapes) -> CheckpointError:
    """The error for a file of which nothing fits a model with these parameters."""
    if not shapes:
        return CheckpointError(f"{short(where, 200)} holds no tensors. Save it again, or download it again")
    ((reason, count),) = Counter(dropped.values()).most_common(1)
    first = next(key for key, why in dropped.items() if why == reason)
    usual = {key: shape for key, shape in shapes.items() if len(key) <= LONGEST_KEY}
    video, audio = (parameters.get(f"{tower}blocks.0.self_attn.q.weight", (0, 0))[1] for tower in ("", AUDIO_TOWER))
    likely = _owner(usual, video, 0 if audio_in_name(where) else audio)
    if not likely and all(why == NO_LAYER for why in dropped.values()):
        likely = "no key of it is known"
    if not likely and all(why == OWN for why in dropped.values()):
        likely = "it is no LoRA but whole weights"
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
    queries = [shape for key, shape in shapes.items() if QUERY.search(key) and len(shape) in (2, 4)]
    widths = sorted({width for rank, width, *_ in queries if rank < width})
    if widths and widths[0] == video:
        return ""
    if widths:
        name = WAN_WIDTHS.get(widths[0], f"a Wan-shaped model of width {widths[0]}")
        tower = ". MOVA's audio tower has that width too: if it is one of those, put audio_dit into the file's name"
        return f"it looks like a LoRA of {name}{tower if widths[0] == audio else ''}"
    described = "" if any(split_key(key) or OTHER_KINDS.search(key) for key in shapes) else describe(shapes)
    return f"it is no LoRA but {described}" if described not in ("", "a LoRA", UNKNOWN) else ""
