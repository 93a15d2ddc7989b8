"""config.json -> configuration. What is not implemented is refused by name, never ignored.

Sources: OpenMOSS/MOVA 595a976, the published config files; DiffSynth-Studio 2.1.12 `configs/model_configs.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..config import AudioVAEConfig, BridgeConfig, SchedulerConfig, TowerConfig
from ..errors import ConfigError

Json = Mapping[str, Any]
C = TypeVar("C")

# Flags without which the weights would mean something else: value this package implements, for each name.
TOWER_FLAGS = {
    "has_image_input": False,
    "has_image_pos_emb": False,
    "has_ref_conv": False,
    "add_control_adapter": False,
    "seperated_timestep": False,  # upstream's spelling
    "fuse_vae_embedding_in_latents": False,
    "vae_type": "dac",
}
BRIDGE_FLAGS = {
    "interaction_strategy": "full",
    "apply_cross_rope": True,
    "apply_first_frame_bias_in_rope": False,
    "trainable_condition_scale": False,
    "pooled_adaln": False,
}
SCHEDULER_FLAGS = {
    "num_train_timesteps": 1000,
    "extra_one_step": True,
    "sigma_max": 1.0,
    "inverse_timesteps": False,
    "reverse_sigmas": False,
    "exponential_shift": False,
    "shift_terminal": None,
}
AUDIO_VAE_FLAGS = {"continuous": True}

# Named in the files, without effect on these weights.
UNUSED = {
    *("require_clip_embedding", "require_vae_embedding", "in_dim_control_adapter"),
    *("use_weight_norm", "n_codebooks", "codebook_size", "codebook_dim", "quantizer_dropout"),
    *("num_inference_steps", "exponential_shift_mu"),
}


def named(where: str, make: Callable[..., C], **fields: Any) -> C:
    """`make` of the fields, where an impossible configuration names the file it came from.

    Raises:
        ConfigError: as `make`.
    """
    try:
        return make(**fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}. Download the files of one MOVA model again") from error


def _fields(config: Json, where: str, names: Mapping[str, str], flags: Json) -> dict[str, Any]:
    """The values of `names` (theirs -> ours); flags are compared, the rest is refused."""
    for key, wanted in flags.items():
        if key in config and config[key] != wanted:
            raise ConfigError(
                f"{where}: {key} is {config[key]!r:.50}; this package implements {wanted!r}; a newer version may do"
            )
    missing = [key for key in names if key not in config]
    if missing:
        raise ConfigError(f"{where} does not say {', '.join(missing)}. Download the file again")
    for key, value in config.items():
        known = key.startswith("_") or key in names or key in flags or key in UNUSED
        if not known and value not in (None, False):
            raise ConfigError(
                f"{where}: {key!r:.50} = {value!r:.50} is not known to this package; a newer version may be needed"
            )
    return {ours: _whole(config[theirs]) for theirs, ours in names.items()}


def _whole(value: Any) -> Any:
    """A list as a tuple, and 48000.0, as some tools write it, as 48000."""
    if isinstance(value, list):
        return tuple(map(_whole, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def tower_config(config: Json, where: str) -> TowerConfig:
    """Sizes of a tower from video_dit/config.json or audio_dit/config.json."""
    names = {
        "dim": "width",
        "num_heads": "heads",
        "num_layers": "layers",
        "ffn_dim": "ffn_width",
        "in_dim": "in_channels",
        "out_dim": "out_channels",
        "patch_size": "patch",
        "text_dim": "text_width",
        "freq_dim": "frequency_width",
        "eps": "eps",
    }
    return named(where, TowerConfig, **_fields(config, where, names, TOWER_FLAGS))


def bridge_config(config: Json, where: str) -> BridgeConfig:
    """Sizes of the bridge from dual_tower_bridge/config.json. Strategy "full" joins every layer both towers have."""
    names = {
        "visual_layers": "video_layers",
        "audio_layers": "audio_layers",
        "visual_hidden_dim": "video_width",
        "audio_hidden_dim": "audio_width",
        "head_dim": "head_width",
        "audio_fps": "audio_rate",
    }
    fields = _fields(config, where, names, BRIDGE_FLAGS)
    absent = [key for key in ("interaction_strategy", "apply_cross_rope") if key not in config]
    if absent:  # the class defaults upstream are other than what the weights were trained with
        raise ConfigError(f"{where} does not say {', '.join(absent)}. Download the file again")
    both = fields.pop("video_layers"), fields.pop("audio_layers")
    layers = min(both, key=lambda n: n if type(n) is int else -1)  # BridgeConfig refuses what is no number
    return named(where, BridgeConfig, layers=layers, eps=1e-6, **fields)


def audio_vae_config(config: Json, where: str) -> AudioVAEConfig:
    """Sizes of the codec from audio_vae/config.json."""
    names = {
        "encoder_dim": "encoder_width",
        "encoder_rates": "encoder_rates",
        "decoder_dim": "decoder_width",
        "decoder_rates": "decoder_rates",
        "latent_dim": "latent_channels",
        "sample_rate": "sample_rate",
    }
    return named(where, AudioVAEConfig, **_fields(config, where, names, AUDIO_VAE_FLAGS))


def scheduler_config(config: Json, index: Json, where: str) -> SchedulerConfig:
    """Schedule of scheduler/scheduler_config.json, expert boundary of model_index.json (0.9 where it is silent)."""
    names = {"shift": "shift", "sigma_min": "sigma_min"}
    fields = _fields(config, where, names, SCHEDULER_FLAGS)
    boundary = index.get("boundary_ratio", 0.9)
    return named(f"{where} or model_index.json", SchedulerConfig, boundary=boundary, **fields)
