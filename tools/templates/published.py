"""The files that templates name, and the pages where they are to be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mova_core.checkpoint.distillation import PUBLISHED_PAIR

MODEL = "MOVA-360p"  # what the loaders name: the folder that a newcomer is told to download
FIRST_FRAME = "example.png"  # lies in the input folder of every ComfyUI
PRECISION = "fp8"  # of the single files, which are converted from MODEL
TEXT_FILE, VAE_FILE = "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
PRISM_FILE = "prism_alpha_video_int8_convrot.safetensors"
INTERPOLATOR, ENLARGER = "film_net_fp16.safetensors", "RealESRGAN_x4plus.safetensors"
NOISES = ("high", "low")
WAN = [f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors" for noise in NOISES]
WAN_LORAS = [
    *(f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{noise}_noise.safetensors" for noise in NOISES),
    *(f"wan2.2_i2v_lightx2v_4steps_lora_v1_{noise}_noise.safetensors" for noise in NOISES),
]
FAST_LORAS = list(PUBLISHED_PAIR.values())

HUB = "https://huggingface.co"
WAN_21 = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN_22 = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"


@dataclass(frozen=True)
class Source:
    """Where files are: the page that has them, and ComfyUI's folder of models that they belong in."""

    page: str
    directory: str


PUBLISHED: Mapping[str, Source] = {
    name: place
    for place, names in {
        Source(f"{HUB}/OpenMOSS-Team", "diffusers"): [MODEL],
        Source(f"{WAN_21}/text_encoders", "text_encoders"): [TEXT_FILE],
        Source(f"{WAN_21}/vae", "vae"): [VAE_FILE],
        Source(f"{WAN_22}/diffusion_models", "diffusion_models"): WAN,
        Source(f"{WAN_22}/loras", "loras"): WAN_LORAS,
        Source(f"{HUB}/Kijai/WanVideo_comfy/resolve/main/LoRAs/Wan22_Lightx2v", "loras"): FAST_LORAS,
        Source(f"{HUB}/Comfy-Org/frame_interpolation/resolve/main/frame_interpolation", "frame_interpolation"): [
            INTERPOLATOR
        ],
        Source(f"{HUB}/Comfy-Org/Real-ESRGAN_repackaged/resolve/main", "upscale_models"): [ENLARGER],
    }.items()
    for name in names
}


def address(name: str) -> str:
    return f"{PUBLISHED[name].page}/{name}"
