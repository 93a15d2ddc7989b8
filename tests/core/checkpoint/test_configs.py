"""Reading config.json: what the published files say, and what is refused by name."""

import re

import pytest

from mova_core.checkpoint import configs
from mova_core.config import MOVA, MOVA_AUDIO_VAE, MOVA_SCHEDULER, MovaConfig
from mova_core.errors import ConfigError
from tests.fixtures.published_configs import bridge_config, dac_config, model_index, scheduler_config, tower_config
from tests.fixtures.tiny_model import TINY

WHERE = "somewhere/config.json"
TOWER = tower_config("WanModel", MOVA.video)
BRIDGE = bridge_config(MOVA)
DAC = dac_config(MOVA_AUDIO_VAE)
SCHEDULER = scheduler_config(MOVA_SCHEDULER)
INDEX = model_index(MOVA_SCHEDULER)


def listed(config: dict) -> dict:
    """As JSON gives it back: lists for tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


def read(kind: str, config: dict) -> object:
    if kind == "scheduler":
        return configs.scheduler_config(config, INDEX, WHERE)
    return getattr(configs, f"{kind}_config")(config, WHERE)


PUBLISHED = {"tower": TOWER, "bridge": BRIDGE, "audio_vae": DAC, "scheduler": SCHEDULER}
PUBLISHED = {kind: listed(config) for kind, config in PUBLISHED.items()}


def test_the_published_configurations_are_the_published_sizes():
    assert read("tower", PUBLISHED["tower"]) == MOVA.video
    audio = listed(tower_config("WanAudioModel", MOVA.audio)) | {"require_clip_embedding": True, "vae_type": "dac"}
    assert read("tower", audio) == MOVA.audio
    assert read("bridge", PUBLISHED["bridge"]) == MOVA.bridge
    assert read("audio_vae", PUBLISHED["audio_vae"]) == MOVA_AUDIO_VAE
    assert read("scheduler", PUBLISHED["scheduler"]) == MOVA_SCHEDULER


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("tower", "has_image_input", True),
        ("tower", "has_image_pos_emb", True),
        ("tower", "has_ref_conv", True),
        ("tower", "add_control_adapter", True),
        ("tower", "seperated_timestep", True),
        ("tower", "fuse_vae_embedding_in_latents", True),
        ("tower", "vae_type", "oobleck"),
        ("bridge", "interaction_strategy", "shallow_focus"),
        ("bridge", "apply_cross_rope", False),
        ("bridge", "apply_first_frame_bias_in_rope", True),
        ("bridge", "trainable_condition_scale", True),
        ("bridge", "pooled_adaln", True),
        ("audio_vae", "continuous", False),
        ("scheduler", "num_train_timesteps", 500),
        ("scheduler", "extra_one_step", False),
        ("scheduler", "sigma_max", 0.9),
        ("scheduler", "inverse_timesteps", True),
        ("scheduler", "reverse_sigmas", True),
        ("scheduler", "exponential_shift", True),
        ("scheduler", "shift_terminal", 0.1),
        *((kind, "a_new_switch", value) for kind in PUBLISHED for value in (True, 3, "yes", [1], {"a": 1})),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(kind, key, value):
    with pytest.raises(ConfigError, match=rf"{WHERE}: '?{key}.* newer version"):
        read(kind, PUBLISHED[kind] | {key: value})


@pytest.mark.parametrize("kind", PUBLISHED)
def test_unknown_keys_that_are_off_or_private_change_nothing(kind):
    extra = {"a_new_switch": False, "another": None, "_name_or_path": "x", "_class_name": "Y"}
    assert read(kind, PUBLISHED[kind] | extra) == read(kind, PUBLISHED[kind])


NEEDED = [
    *(("tower", key) for key in ("dim", "num_heads", "num_layers", "ffn_dim", "in_dim", "out_dim")),
    *(("tower", key) for key in ("patch_size", "text_dim", "freq_dim", "eps")),
    *(("bridge", key) for key in ("visual_layers", "audio_layers", "visual_hidden_dim", "audio_hidden_dim")),
    *(("bridge", key) for key in ("head_dim", "audio_fps", "interaction_strategy", "apply_cross_rope")),
    *(("audio_vae", key) for key in ("encoder_dim", "encoder_rates", "decoder_dim", "decoder_rates", "latent_dim")),
    ("audio_vae", "sample_rate"),
    ("scheduler", "shift"),
    ("scheduler", "sigma_min"),
]


@pytest.mark.parametrize(("kind", "key"), NEEDED)
def test_a_missing_size_is_named(kind, key):
    with pytest.raises(ConfigError, match=rf"{WHERE} does not say {key}\. Download"):
        read(kind, {k: v for k, v in PUBLISHED[kind].items() if k != key})


SIZES = [pair for pair in NEEDED if pair[1] not in configs.BRIDGE_FLAGS]


@pytest.mark.parametrize(("kind", "key"), SIZES)
def test_what_is_no_size_is_refused_by_file(kind, key):
    for value in (None, True, "5120", -1, float("nan"), float("inf"), [], [1, "2"], {}, [[1]]):
        with pytest.raises(ConfigError, match=re.escape(WHERE)) as caught:
            read(kind, PUBLISHED[kind] | {key: value})
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("kind", "key"), SIZES)
def test_odd_numbers_are_taken_only_where_they_mean_something(kind, key):
    measure, lesser_counts = key in {"audio_fps", "shift", "sigma_min"}, key in {"visual_layers", "audio_layers"}
    for value in (0, 0.5, 2**40, 10**400, [2, 3], [0, 2]):
        try:
            read(kind, PUBLISHED[kind] | {key: value})
        except ConfigError as error:
            assert WHERE in str(error)  # noqa: PT017, both outcomes are right
        else:
            assert (measure and value in (0, 0.5)) or (lesser_counts and value > 2**30)


@pytest.mark.parametrize(("kind", "key"), SIZES)
def test_whole_numbers_may_be_written_as_fractions(kind, key):
    value = PUBLISHED[kind][key]
    written = [float(n) for n in value] if isinstance(value, list | tuple) else float(value)
    assert read(kind, PUBLISHED[kind] | {key: written}) == read(kind, PUBLISHED[kind])


@pytest.mark.parametrize("eps", [0, 0.0, 0.5, 10, 1e-1])
def test_norms_that_divide_by_nothing_or_flatten_everything_are_refused(eps):
    with pytest.raises(ConfigError, match=r"eps is .*, not a possible size"):
        read("tower", PUBLISHED["tower"] | {"eps": eps})
    assert read("tower", PUBLISHED["tower"] | {"eps": 1e-5})


@pytest.mark.parametrize("boundary", [None, "0.9", 1.5, -0.1, float("nan"), [0.9], True])
def test_a_boundary_that_is_none_is_refused_naming_its_file(boundary):
    with pytest.raises(ConfigError, match=r"model_index\.json.*boundary"):
        configs.scheduler_config(PUBLISHED["scheduler"], {"boundary_ratio": boundary}, WHERE)


def test_the_boundary_is_what_the_index_says_else_nine_tenths():
    assert configs.scheduler_config(PUBLISHED["scheduler"], {"boundary_ratio": 0.8}, WHERE).boundary == 0.8
    assert configs.scheduler_config(PUBLISHED["scheduler"], {}, WHERE).boundary == 0.9


def test_the_bridge_joins_every_layer_both_towers_have():
    assert read("bridge", PUBLISHED["bridge"] | {"visual_layers": 7, "audio_layers": 9}).layers == 7


# configurations that do not fit


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("video", {"heads": 5}, "5 heads"),
        ("video", {"width": 20}, "heads"),  # heads of 5: an odd width has no pairs
        ("video", {"patch": (2, 2, 2)}, "patch"),
        ("video", {"patch": (1,)}, "where the video tower belongs"),
        ("audio", {"patch": (1, 2, 2)}, "where the audio tower belongs"),
        ("video", {"in_channels": 4}, "first frame"),
        ("audio", {"out_channels": 7}, "audio tower takes 6 channels and makes 7"),
        ("audio", {"text_width": 21}, "text of widths 20 and 21"),
        ("audio", {"width": 48}, "bridge joins"),
        ("audio", {"layers": 4}, "deeper"),
        ("audio", {"layers": 1}, "2 bridge layers"),
        ("bridge", {"head_width": 5}, "5 do not divide"),
        ("bridge", {"head_width": 3}, "3 do not divide"),  # no halves
        ("bridge", {"audio_width": 36}, "bridge joins"),
        ("bridge", {"layers": 3}, "3 bridge layers"),
    ],
)
def test_parts_that_do_not_fit_make_no_model(part, changes, says):
    with pytest.raises(ConfigError, match=says):
        _with(part, changes)


def _with(part: str, changes: dict) -> MovaConfig:
    kept = {name: getattr(TINY, name) for name in ("video", "audio", "bridge")}
    return MovaConfig(**kept | {part: type(kept[part])(**vars(kept[part]) | changes)})


def test_no_size_has_a_default():
    with pytest.raises(TypeError, match="missing"):
        type(TINY.video)(width=8)
