"""What the keys of a LoRA mean: which layer, which tensor of the change, which expert, in every dialect trainers write.

    <wrappers><component>.<layer><suffix>
    pipe.         video_dit_2.   blocks.0.self_attn.q   .lora_A.default.weight

Dots and underscores count as one: trainers mix them within a key (`lora_unet_blocks_0.self_attn.q`).
Facts: OpenMOSS/MOVA 595a976 `engine/trainer`, DiffSynth-Studio 2.1.12 `examples/mova`, VideoX-Fun `scripts/mova` (whose
`transformer` is the low-noise expert and `transformer_2` the high-noise one, the other way round than in diffusers),
kohya's underscored names, diffusers' names of Wan's layers, PEFT and LyCORIS for what a layer's tensors are called.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ..sampling.schedule import Expert
from .experts import EXPERT_FOLDERS

LoraPart = Literal["video", "audio", "audio_to_video", "video_to_audio"]
LORA_PARTS: tuple[LoraPart, ...] = ("video", "audio", "audio_to_video", "video_to_audio")
AUDIO_TOWER, BRIDGE_FOLDER = "audio_dit.", "dual_tower_bridge."
LONGEST_KEY = 300  # characters; MOVA's longest has 90
MOST_WORDS = 8  # looked at before or behind a layer's name

NO_ADAPTER = r"weight|bias|(?:\w+_)?alpha|rank|\w*scal(?:e|ing)(?:_\w+)?|comfy_quant"
ADAPTER = rf"(?:\.(?!(?:{NO_ADAPTER})$)(?P<adapter>[\w\-]+))?(?:\.weight)?$"  # PEFT's name of it, if it is there
DOWN, UP = r"\.lora_?(?:[Aa]|down)", r"\.lora_?(?:[Bb]|up)"
SCALE = r"(?:\.[\w\-]+)?\.(?:weight_scale(?:_inv)?|scale_weight)$"
ALPHA = r"\.(?:lora_|network_)?alpha"
FACTORS = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
)
TENSOR_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (  # a suffix, which tensor of a change it is
    ("down", re.compile(rf"{DOWN}{ADAPTER}|[._]lora(?:_linear_layer)?\.down\.weight$")),
    ("up", re.compile(rf"{UP}{ADAPTER}|[._]lora(?:_linear_layer)?\.up\.weight$")),
    ("up_bias", re.compile(rf"{UP}(?:\.(?P<adapter>[\w\-]+))?\.bias$")),
    ("down_scale", re.compile(DOWN + SCALE)),  # of halves stored in 8 bits
    ("up_scale", re.compile(UP + SCALE)),
    ("magnitude", re.compile(rf"\.lora_magnitude_vector{ADAPTER}|\.dora_scale$")),
    ("alpha", re.compile(rf"(?:{DOWN}|{UP}){ALPHA}$|{ALPHA}(?:\.[\w\-]+)?$")),
    ("diff", re.compile(r"\.(?:diff|w_norm)$")),
    ("diff_b", re.compile(r"\.(?:diff_b|b_norm)$")),
    ("diff_m", re.compile(r"\.diff_m$")),
    *((name, re.compile(rf"\.{name}{ADAPTER}")) for name in FACTORS),
)
OTHER_KINDS = re.compile(
    r"\.(?P<kind>hada_t|lokr_t|oft|boft|glora|a1|a2|b1|b2|lora_mid|set_weight|reshape_weight|rescale|vera|ia3|lora_E|modules_to_save)"
    r"[\w.\-]*$"
)
# What compiling and sharding put into names, anywhere: with dots around it or, in kohya's spelling, underscores.
WRAPPED = re.compile(
    r"(?:^|(?<=[._]))_?(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module|forward_module|fpw_module|module|processor)[._]"
)
ROLE = r"model|expert|transformer|dit|unet|lora"
NOISE_LEVEL = rf"(?:(?:{ROLE})_)?(?:high|low)(?:_noise)?(?:_(?:{ROLE}))?(?=_)"
BEFORE = re.compile(  # before a layer, in any order and number
    rf"(?:{NOISE_LEVEL}|base_model|model|diffusion_model|pipe|module|unet|denoiser|generator|student|ema|net|network|backbone"
    r"|wan|lora_unet|lora_transformer(?!_[12])|lora|lycoris"
    r"|video_dit_2|video_dit|transformer_[12]|transformer_audio(?!_dit)|transformer|dit_?[12]|dit)_+"
)
COMPONENTS: dict[str, tuple[Expert | None, str]] = {  # the expert it names, the part of the model it stands for
    EXPERT_FOLDERS["low"]: ("low", ""),
    EXPERT_FOLDERS["high"]: ("high", ""),
    **dict.fromkeys(("transformer_2", "dit2", "dit_2"), ("low", "")),
    **dict.fromkeys(("transformer_1", "dit1", "dit_1"), ("high", "")),  # ai-toolkit's, before it parts a file in two
    "transformer_audio": (None, AUDIO_TOWER),
    "transformer": (None, ""),  # the high-noise expert where the file has a transformer_2 beside it
    "dit": (None, ""),  # likewise, beside DiffSynth-Studio's dit2
}
SECOND = re.compile(rf"(?:{BEFORE.pattern})*?(?:transformer_2|dit_?2)_")
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


class Split(NamedTuple):
    """A key taken apart: of which layer, which tensor (of `TENSOR_KINDS`), of which adapter, if it says."""

    stem: str
    kind: str
    adapter: str = ""


def split_key(key: str) -> Split | None:
    """A key without wrappers, taken apart; None where its end is not known."""
    key = unwrapped(key)
    for kind, pattern in TENSOR_KINDS:
        found = pattern.search(key)
        if found:
            return Split(key[: found.start()], kind, found.groupdict().get("adapter") or "")
    return None


def unwrapped(key: str) -> str:
    """A key without what torch.compile, FSDP and checkpointing put into it; `$$` is ai-toolkit's dot."""
    return WRAPPED.sub("", key.replace("$$", "."))


def part_of(parameter: str) -> LoraPart:
    """The part of the joint model a parameter belongs to."""
    if parameter.startswith(AUDIO_TOWER):
        return "audio"
    if not parameter.startswith(BRIDGE_FOLDER):
        return "video"
    return "audio_to_video" if "audio_to_video" in parameter else "video_to_audio"


def diffusers_name(layer: str) -> str:
    """diffusers' name of a layer of Wan's."""
    for pattern, name in DIFFUSERS:
        layer = re.sub(pattern, name, layer)
    return layer


def one_spelling(name: str) -> str:
    """A name with underscores alone, and without those around it."""
    return name.replace(".", "_").strip("_")


class Names:
    """Finds the layer of the joint model that a name in any dialect means.

    `bare` is where a name without any component belongs: "" (the video tower) or "audio_dit.". `first` is the expert
    that `transformer.` and `dit.` name, which say so only beside a second.
    """

    def __init__(self, parameters: Iterable[str], bare: str = "", first: Expert | None = None) -> None:
        self.parameters = frozenset(parameters)
        layers = {re.sub(r"\.(weight|bias)$", "", name) for name in self.parameters}
        layers |= {layer.removesuffix(".modulation") for layer in layers}  # `blocks.0.diff_m`
        spelled = {diffusers_name(layer): layer for layer in layers}
        spelled |= {name.removesuffix(".0"): layer for name, layer in spelled.items() if name.endswith("to_out.0")}
        spelled |= {layer: layer for layer in layers}
        self._spelled = {one_spelling(name): layer for name, layer in spelled.items()}
        self._bare, self._first = bare, first

    def find(self, name: str) -> tuple[str | None, Expert | None]:
        """The layer, if the model has it, and the expert that the name says."""
        name, expert, prefixes = self._without_components(name)
        for prefix in prefixes:
            layer = self._spelled.get(prefix.replace(".", "_") + name)
            if layer is not None:
                return layer, expert
        return None, expert

    def _without_components(self, name: str) -> tuple[str, Expert | None, tuple[str, ...]]:
        """A name in one spelling without what stands before layers, the expert this says, parts it may be of."""
        name = one_spelling(name)
        expert: Expert | None = None
        prefixes: tuple[str, ...] = (self._bare, "", BRIDGE_FOLDER)
        while before := BEFORE.match(name):
            word, name = before[0].rstrip("_"), name[before.end() :]
            if word in COMPONENTS:
                told, prefix = COMPONENTS[word]
                expert = told or expert or (self._first if word in ("transformer", "dit") else None)
                prefixes = prefixes if word == "dit" else (prefix,)
            elif re.fullmatch(NOISE_LEVEL.removesuffix("(?=_)"), word):
                expert, prefixes = "high" if "high" in word else "low", ("",)
        return name, expert, prefixes

    def holder(self, key: str) -> tuple[str, Expert | None, str] | None:
        """The layer that a key of an unknown kind is of, the expert and the kind; None where it is of none."""
        stem = unwrapped(key)
        for _ in range(MOST_WORDS):
            stem, dot, _ = stem.rpartition(".")
            layer, expert = self.find(stem) if dot else (None, None)
            if f"{layer}.weight" in self.parameters:
                return str(layer), expert, unwrapped(key)[len(stem) + 1 :]
        return None

    def unknown_start(self, name: str) -> str:
        """What stands before a name of a layer and is not known; empty where no end of the name is a layer's."""
        name, _, _ = self._without_components(name)
        words = name.split("_")
        for at in range(1, min(len(words), MOST_WORDS)):
            if f"{self._spelled.get('_'.join(words[at:]))}.weight" in self.parameters:
                return "_".join(words[:at])
        return ""


def names_second(keys: Iterable[str]) -> bool:
    """Whether a file holds the second expert, of low noise, as diffusers' and DiffSynth's pipelines call it."""
    return any(SECOND.match(one_spelling(unwrapped(key))) for key in keys)
