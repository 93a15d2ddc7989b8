"""What the keys of a LoRA mean: which layer, which half of the change, which expert, in every dialect trainers write.

    <wrappers><component>.<layer><suffix>
    pipe.         video_dit_2.   blocks.0.self_attn.q   .lora_A.default.weight

Facts: OpenMOSS/MOVA 595a976 `engine/trainer`, DiffSynth-Studio 2.1.12 `examples/mova`, VideoX-Fun `scripts/mova` (whose
`transformer` is the low-noise expert and `transformer_2` the high-noise one, the other way round than in diffusers),
kohya's underscored names, diffusers' names of Wan's layers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from ..config import MOVA
from ..errors import CheckpointError
from .detect import Shapes, describe

Part = Literal["video", "audio", "audio_to_video", "video_to_audio"]
Expert = Literal["high", "low"]
PARTS: tuple[Part, ...] = ("video", "audio", "audio_to_video", "video_to_audio")
AUDIO, BRIDGE = "audio_dit.", "dual_tower_bridge."

KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (  # a suffix, which half of a change it is
    ("down", re.compile(r"\.lora_(?:A|down)(?:\.\w+)?(?:\.weight)?$|\.lora(?:_linear_layer)?\.down\.weight$")),
    ("up", re.compile(r"\.lora_(?:B|up)(?:\.(?!bias)\w+)?(?:\.weight)?$|\.lora(?:_linear_layer)?\.up\.weight$")),
    ("alpha", re.compile(r"\.alpha$")),
    ("diff", re.compile(r"\.diff$")),
    ("diff_b", re.compile(r"\.diff_b$")),
    ("diff_m", re.compile(r"\.diff_m$")),
)
OTHER_KINDS = re.compile(
    r"\.(dora_scale|hada_\w+|lokr_\w+|oft_\w+|boft_\w+|glora_\w+|lora_mid|w_norm|b_norm|set_weight|reshape_weight"
    r"|lora_B(\.\w+)?\.bias)(\.weight)?$"
)
OTHER_KIND = "not a plain LoRA (DoRA, LoHa, LoKr, OFT or similar); the stock 'Load LoRA' nodes apply those"
WRAPPERS = re.compile(r"^(?:(?:base_model\.model|base_model|model|diffusion_model|pipe|module|unet|dit)\.)+")
COMPONENTS: tuple[
    tuple[str, Expert | None, str], ...
] = (  # before a layer: the expert it names, the part it stands for
    ("video_dit_2", "low", ""),
    ("video_dit", "high", ""),
    ("transformer_2", "low", ""),
    ("transformer_audio", None, AUDIO),
    ("transformer", None, ""),  # the high-noise expert where the file has a transformer_2 beside it
)
UNDERSCORED = re.compile(r"^(?:lora_unet__|lora_unet_|lora_transformer_|lycoris_)")
DIFFUSERS: tuple[tuple[str, str], ...] = (  # our layer -> diffusers' name of it
    (r"\bself_attn\b", "attn1"),
    (r"\bcross_attn\b", "attn2"),
    (r"(?<=attn[12]\.)([qkv])$", r"to_\1"),
    (r"(?<=attn[12]\.)o$", "to_out.0"),
    (r"\bffn\.0$", "ffn.net.0.proj"),
    (r"\bffn\.2$", "ffn.net.2"),
    (r"\bnorm3$", "norm2"),
    (r"\btext_embedding\.0$", "condition_embedder.text_embedder.linear_1"),
    (r"\btext_embedding\.2$", "condition_embedder.text_embedder.linear_2"),
    (r"\btime_embedding\.0$", "condition_embedder.time_embedder.linear_1"),
    (r"\btime_embedding\.2$", "condition_embedder.time_embedder.linear_2"),
    (r"\btime_projection\.1$", "condition_embedder.time_proj"),
    (r"\bhead\.head$", "proj_out"),
    (r"\bhead\.modulation$", "scale_shift_table"),
    (r"\bmodulation$", "scale_shift_table"),
)
NO_TARGET = (
    (
        re.compile(r"img_emb|[kv]_img|image_embedder|add_[kv]_proj|norm_added"),
        "Wan 2.1's picture encoder; MOVA has none",
    ),
    (
        re.compile(r"^(lora_te|te\d?[_.]|text_encoders?[_.]|clip)"),
        "of a text encoder; only the diffusion model is patched",
    ),
)
OWNERS: tuple[tuple[str, str], ...] = (  # the first pattern found in a key names the likely model of a foreign LoRA
    (r"vace_blocks", "Wan VACE"),
    (r"audio_attn1|audio_to_video_attn|video_to_audio_attn", "LTX-2"),
    (r"token_refiner|double_blocks\.\d+\.img_attn_(qkv|proj)\.|img_mlp[._]fc1|txt_mlp[._]fc1", "HunyuanVideo"),
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux"),
    (r"transformer_blocks[._]\d+[._](img_mlp|txt_mlp|img_mod)", "Qwen-Image"),
    (r"lora_te2|input_blocks|output_blocks|down_blocks|up_blocks|mid_block", "Stable Diffusion (SDXL or 1.5)"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"transformer_blocks[._]\d+[._]attn[12]", "LTX Video"),
    (r"^(lora_te|text_encoder)", "a text encoder alone"),
)
WAN_WIDTHS = {1536: "Wan 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B", 2048: "a model of Wan's kind"}


def split_key(key: str) -> tuple[str, str] | None:
    """A key without its suffix, and what the suffix says: down, up, alpha, diff, diff_b or diff_m."""
    for kind, pattern in KINDS:
        found = pattern.search(key)
        if found:
            return key[: found.start()], kind
    return None


def part_of(parameter: str) -> Part:
    """The part of the joint model a parameter belongs to."""
    if parameter.startswith(AUDIO):
        return "audio"
    if not parameter.startswith(BRIDGE):
        return "video"
    return "audio_to_video" if "audio_to_video" in parameter else "video_to_audio"


def diffusers_name(layer: str) -> str:
    """diffusers' name of a layer of Wan's."""
    for pattern, name in DIFFUSERS:
        layer = re.sub(pattern, name, layer)
    return layer


class Names:
    """Finds the layer of the joint model that a name in any dialect means.

    `bare` is where a name without any component belongs: "" (the video tower) or "audio_dit.". `transformer` is the
    expert that diffusers' `transformer.` names.
    """

    def __init__(self, parameters: Iterable[str], bare: str = "", transformer: Expert | None = None) -> None:
        layers = {re.sub(r"\.(weight|bias)$", "", name) for name in parameters}
        layers |= {layer.removesuffix(".modulation") for layer in layers}  # `blocks.0.diff_m`
        spelled = {diffusers_name(layer): layer for layer in layers} | {layer: layer for layer in layers}
        self._spelled = {name.replace(".", "_"): layer for name, layer in spelled.items()} | spelled
        self._bare, self._transformer = bare, transformer

    def find(self, name: str) -> tuple[str | None, Expert | None]:
        """The layer, if the model has it, and the expert that the name says."""
        name, underscored = UNDERSCORED.subn("", name)
        name = name if underscored else WRAPPERS.sub("", name)
        expert: Expert | None = None
        prefixes: tuple[str, ...] = (self._bare, "", BRIDGE)
        for component, said, prefix in COMPONENTS:
            rest = name.removeprefix(component + ("_" if underscored else "."))
            if rest != name:
                name, expert, prefixes = rest, said, (prefix,)
                expert = self._transformer if component == "transformer" else expert
                break
        for prefix in prefixes:
            layer = self._spelled.get((prefix.replace(".", "_") if underscored else prefix) + name)
            if layer is not None:
                return layer, expert
        return None, expert


def names_both_transformers(keys: Iterable[str]) -> bool:
    """Whether a file holds diffusers' two experts, `transformer.` (high noise) and `transformer_2.` (low noise)."""
    return any(WRAPPERS.sub("", key).startswith("transformer_2.") for key in keys)


def expert_in_name(name: str) -> Expert | None:
    """The expert that a file's name, with the folders it lies in, says; None where it says none or both.

    `video_dit` and `video_dit_2` are MOVA's own names, `transformer` (low noise!) and `transformer_2` VideoX-Fun's.
    """
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("\\", "/")
    told = {
        "high": r"high[ _.\-]?noise|(?<![a-z])hn(?![a-z])|video_dit(?!_2)|transformer_2"
        r"|(?<![a-z])high(?![a-z])(?![ _\-]?(res|quality|def|detail|speed|fps|contrast|motion))",
        "low": r"low[ _.\-]?noise|(?<![a-z])ln(?![a-z])|video_dit_2|(?<![a-z_])transformer(?=[./]|$)"
        r"|(?<![a-z])low(?![a-z])(?![ _\-]?(res|quality|def|vram|rank|ram|poly|light|key))",
    }
    high, low = (re.search(told[expert], spread) is not None for expert in ("high", "low"))
    return None if high == low else "high" if high else "low"


def audio_in_name(name: str) -> bool:
    """Whether a file's name says that it is the audio tower's."""
    return re.search(r"audio[ _\-]?(dit|tower)|transformer_audio", name.lower()) is not None


def why_no_target(key: str) -> str:
    """The reason a key has no target, as far as the key tells."""
    for pattern, reason in NO_TARGET:
        if pattern.search(WRAPPERS.sub("", key)):
            return reason
    if OTHER_KINDS.search(key):
        return OTHER_KIND
    return "the model has no such layer"


def owner(shapes: Shapes) -> str:
    """Words on which model a LoRA that fits nothing was probably made for."""
    for pattern, name in OWNERS:
        if any(re.search(pattern, key) for key in shapes):
            return f"it looks like a LoRA of {name}"
    widths = wan_widths(shapes)
    for width in widths:
        name = WAN_WIDTHS.get(width, f"a Wan-shaped model of width {width}")
        tower = ""
        if width == MOVA.audio.width:
            tower = ". MOVA's audio tower has that width too: if it is one of those, put audio_dit into the file's name"
        return f"it looks like a LoRA of {name}{tower}"
    if not any(split_key(key) or OTHER_KINDS.search(key) for key in shapes):
        return f"it is no LoRA but {describe(shapes)}"
    return "no key of it is known"


def wan_widths(shapes: Shapes) -> list[int]:
    """Input widths of the query projections of Wan-shaped blocks in a LoRA."""
    query = re.compile(r"blocks[._]\d+[._](self_attn|attn1)[._](to_)?q\.lora_(A|down)")
    return sorted({shape[1] for key, shape in shapes.items() if query.search(key) and len(shape) > 1})


def refuse(shapes: Shapes, dropped: Mapping[str, str], where: str) -> CheckpointError:
    """The error for a file of which nothing fits."""
    key, reason = next(iter(dropped.items()), ("nothing", "the file is empty"))
    return CheckpointError(
        f"{where} does not fit MOVA: {owner(shapes)}. Of its {len(shapes)} keys none has a target (first: {key}: "
        f"{reason}). Choose a LoRA trained on MOVA or on Wan 2.2 A14B"
    )
