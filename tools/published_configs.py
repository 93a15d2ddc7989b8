"""The json files of a published checkpoint, as functions of the sizes: model_index.json and every config.json.

Flags that no published MOVA sets differently are written as they are there.
"""

from typing import Any

from mova_core.config import AudioVAEConfig, MovaConfig, SchedulerConfig, TowerConfig
from tools.key_shapes import UMT5Sizes, WanVAESizes

VERSIONS = {"diffusers": "0.36.0", "transformers": "4.57.6"}  # what the published files say wrote them

# Normalisation of the Wan 2.1 latents, one number a channel: the same in every published MOVA.
LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


def _diffusers(class_name: str) -> dict[str, Any]:
    return {"_class_name": class_name, "_diffusers_version": VERSIONS["diffusers"]}


def model_index(scheduler: SchedulerConfig) -> dict[str, Any]:
    official = "mova.diffusion"
    return _diffusers("MOVA") | {
        "audio_dit": [f"{official}.models.wan_audio_dit", "WanAudioModel"],
        "audio_vae": [f"{official}.models.dac_vae", "DAC"],
        "audio_vae_type": "dac",
        "boundary_ratio": scheduler.boundary,
        "dual_tower_bridge": [f"{official}.models.interactionv2", "DualTowerConditionalBridge"],
        "scheduler": [f"{official}.schedulers.flow_match_pair", "FlowMatchPairScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "video_dit": [f"{official}.models.wan_video_dit", "WanModel"],
        "video_dit_2": [f"{official}.models.wan_video_dit", "WanModel"],
        "video_vae": ["diffusers", "AutoencoderKLWan"],
    }


def scheduler_config(scheduler: SchedulerConfig) -> dict[str, Any]:
    return _diffusers("FlowMatchPairScheduler") | {
        "exponential_shift": False,
        "exponential_shift_mu": None,
        "extra_one_step": True,
        "inverse_timesteps": False,
        "num_inference_steps": 100,
        "num_train_timesteps": 1000,
        "reverse_sigmas": False,
        "shift": scheduler.shift,
        "shift_terminal": None,
        "sigma_max": 1.0,
        "sigma_min": scheduler.sigma_min,
    }


def tower_config(class_name: str, tower: TowerConfig) -> dict[str, Any]:
    return _diffusers(class_name) | {
        "add_control_adapter": False,
        "dim": tower.width,
        "eps": tower.eps,
        "ffn_dim": tower.ffn_width,
        "freq_dim": tower.frequency_width,
        "fuse_vae_embedding_in_latents": False,
        "has_image_input": False,
        "has_image_pos_emb": False,
        "has_ref_conv": False,
        "in_dim": tower.in_channels,
        "in_dim_control_adapter": 24,
        "num_heads": tower.heads,
        "num_layers": tower.layers,
        "out_dim": tower.out_channels,
        "patch_size": tower.patch,
        "require_clip_embedding": False,
        "require_vae_embedding": True,
        "seperated_timestep": False,  # the official spelling
        "text_dim": tower.text_width,
    }


def bridge_config(mova: MovaConfig) -> dict[str, Any]:
    return _diffusers("DualTowerConditionalBridge") | {
        "apply_cross_rope": True,
        "apply_first_frame_bias_in_rope": False,
        "audio_fps": mova.bridge.audio_rate,
        "audio_hidden_dim": mova.audio.width,
        "audio_layers": mova.audio.layers,
        "head_dim": mova.bridge.head_width,
        "interaction_strategy": "full",
        "pooled_adaln": False,
        "trainable_condition_scale": False,
        "visual_hidden_dim": mova.video.width,
        "visual_layers": mova.video.layers,
    }


def dac_config(dac: AudioVAEConfig) -> dict[str, Any]:
    return _diffusers("DAC") | {
        "codebook_dim": 8,
        "codebook_size": 1024,
        "continuous": True,
        "decoder_dim": dac.decoder_width,
        "decoder_rates": dac.decoder_rates,
        "encoder_dim": dac.encoder_width,
        "encoder_rates": dac.encoder_rates,
        "latent_dim": dac.latent_channels,
        "n_codebooks": 9,
        "quantizer_dropout": False,
        "sample_rate": dac.sample_rate,
        "use_weight_norm": False,
    }


def wan_vae_config(vae: WanVAESizes) -> dict[str, Any]:
    return _diffusers("AutoencoderKLWan") | {
        "attn_scales": [],
        "base_dim": vae.base_channels,
        "decoder_base_dim": None,
        "dim_mult": vae.multipliers,
        "dropout": 0.0,
        "in_channels": 3,
        "is_residual": False,
        "latents_mean": LATENTS_MEAN[: vae.latent_channels],
        "latents_std": LATENTS_STD[: vae.latent_channels],
        "num_res_blocks": vae.residual_blocks,
        "out_channels": 3,
        "patch_size": None,
        "scale_factor_spatial": 2 ** len(vae.temporal_downsample),
        "scale_factor_temporal": 2 ** sum(vae.temporal_downsample),
        "temperal_downsample": vae.temporal_downsample,  # the official spelling
        "z_dim": vae.latent_channels,
    }


def umt5_config(text: UMT5Sizes) -> dict[str, Any]:
    return {
        "architectures": ["UMT5EncoderModel"],
        "classifier_dropout": 0.0,
        "d_ff": text.ffn_width,
        "d_kv": text.head_width,
        "d_model": text.width,
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new",
        "dropout_rate": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-6,
        "model_type": "umt5",
        "num_decoder_layers": text.layers,
        "num_heads": text.heads,
        "num_layers": text.layers,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": text.position_buckets,
        "tokenizer_class": "T5Tokenizer",
        "transformers_version": VERSIONS["transformers"],
        "use_cache": True,
        "vocab_size": text.vocabulary,
    }
