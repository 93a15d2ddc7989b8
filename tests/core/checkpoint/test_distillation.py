"""A pair of distillation LoRAs is known by its names, whatever else lies in the folder."""

import pytest

from mova_core.checkpoint.distillation import PUBLISHED_PAIR, distillation_pair

KIJAI = "Wan22_Lightx2v/Wan_2_2_I2V_A14B_{}_lightx2v_4step_lora_v1030_rank_64_bf16.safetensors"
COMFY = "wan2.2_i2v_lightx2v_4steps_lora_v1_{}_noise.safetensors"
LIGHTNING = "Wan2.2-Lightning/Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1/{}_noise_model.safetensors"
OTHERS = [
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors",
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors",
    "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64_high.safetensors",
    "my style high_noise.safetensors",
    "my style low_noise.safetensors",
    "high_heels.safetensors",
]


def named(pattern: str, high: str = "high", low: str = "low") -> dict[str, str]:
    return {"high": pattern.format(high), "low": pattern.format(low)}


@pytest.mark.parametrize(
    "pair",
    [
        dict(PUBLISHED_PAIR),
        named(KIJAI, "HIGH", "LOW"),
        named(COMFY),
        named(LIGHTNING),
        named("wan22 i2v lightx2v 4step {}", "HN", "LN"),
        named("video\\Wan2.2_I2V_Lightx2v_{}", "H", "L"),
    ],
)
def test_a_published_pair_is_found_among_others(pair: dict[str, str]) -> None:
    assert distillation_pair([*OTHERS, *pair.values()]) == pair


@pytest.mark.parametrize("names", [[], OTHERS, [PUBLISHED_PAIR["high"]], [PUBLISHED_PAIR["high"], COMFY.format("low")]])
def test_half_a_pair_and_other_loras_are_none(names: list[str]) -> None:
    assert distillation_pair(names) is None


def test_the_release_of_the_recipe_comes_before_others_wherever_it_lies() -> None:
    tried = {expert: f"a folder/{name}" for expert, name in PUBLISHED_PAIR.items()}
    assert distillation_pair([*named(LIGHTNING).values(), *tried.values(), *named(COMFY).values()]) == tried


def test_the_order_of_the_list_changes_nothing() -> None:
    names = [*named(LIGHTNING).values(), *named(COMFY).values(), *named(KIJAI, "HIGH", "LOW").values()]
    assert distillation_pair(names) == distillation_pair(reversed(names)) is not None
