"""Which files of a list are a pair of distillation LoRAs for Wan 2.2's image-to-video experts, by their names.

Published under many names, one file an expert: `Wan_2_2_I2V_A14B_HIGH_lightx2v_4step_lora_260412_rank_256_fp16`,
`wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise`, `Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1/high_noise_model`.
"""

import re
from collections.abc import Iterable, Mapping

from ..sampling.schedule import Expert
from .experts import EXPERT_FOLDERS
from .lora_names import expert_in_name

REPOSITORY = "Kijai/WanVideo_comfy"  # on Hugging Face, in the folder LoRAs/Wan22_Lightx2v
TRIED = "260412"  # the release that the recipe was tried with
PUBLISHED_PAIR: Mapping[Expert, str] = {
    expert: f"Wan_2_2_I2V_A14B_{expert.upper()}_lightx2v_4step_lora_{TRIED}_rank_256_fp16.safetensors"
    for expert in EXPERT_FOLDERS
}
DISTILLED = re.compile(r"light[ _.\-]?x2v|lightning|seko")
OTHER_MODEL = re.compile(r"t2v|ti2v|wan[ _.\-]?2[ _.\-]?1|s2v|animate|qwen")
SAID = re.compile(r"high|low|(?<![a-z])[hl]n?(?![a-z])")


def distillation_pair(names: Iterable[str]) -> Mapping[Expert, str] | None:
    """The best pair: of the release that was tried where there is one, else the last by name; None where there is none.

    `names`: of files, with folders.
    """
    families: dict[str, dict[Expert, str]] = {}
    for name in sorted(names):
        told = expert_in_name(name)
        if told and DISTILLED.search(name.lower()) and not OTHER_MODEL.search(name.lower()):
            families.setdefault(SAID.sub("*", name.lower()), {}).setdefault(told[0], name)
    pairs = [(TRIED in family, family) for family, pair in families.items() if pair.keys() == set(EXPERT_FOLDERS)]
    return families[max(pairs)[1]] if pairs else None
