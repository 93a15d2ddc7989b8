"""Folding weight normalisation: the same layer, plain keys, and no half pairs."""

import pytest
import torch
from torch import nn
from torch.nn import Conv1d, ConvTranspose1d, Linear

from mova_core.checkpoint.weight_norm import fold_weight_norm
from mova_core.errors import CheckpointError
from tests.golden import key_table, needs_larger, relative_error, tensors

OLD, NEW = nn.utils.weight_norm, nn.utils.parametrizations.weight_norm
LAYERS = [lambda: Conv1d(4, 6, 3), lambda: ConvTranspose1d(6, 4, 4), lambda: Linear(4, 6)]


def normalised(make_layer, norm):
    """A stack with one normalised layer, its lengths and directions unrelated."""
    torch.manual_seed(0)
    stack = nn.Sequential(nn.Identity(), norm(make_layer(), dim=0))
    for parameter in stack.parameters():
        nn.init.normal_(parameter)
    return stack


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, about the old style
@pytest.mark.parametrize("norm", [OLD, NEW])
@pytest.mark.parametrize("make_layer", LAYERS)
def test_folding_changes_keys_but_not_the_layer(make_layer, norm):
    before, after = normalised(make_layer, norm), nn.Sequential(nn.Identity(), make_layer())
    after.load_state_dict(fold_weight_norm(before.state_dict()), strict=True)
    layer = after[1]
    x = torch.randn(2, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)
    x = x if isinstance(layer, nn.Linear) else x[..., None].repeat(1, 1, 9)
    assert torch.equal(before(x), after(x))


def test_a_file_without_pairs_comes_back_tensor_for_tensor():
    plain = {"a.weight": torch.ones(2, 2), "a.weight_gain": torch.ones(2), "overweight_g": torch.ones(1)}
    folded = fold_weight_norm(plain)
    assert folded is not plain
    assert list(folded) == list(plain)
    assert all(folded[key] is plain[key] for key in plain)


def test_folding_twice_is_folding_once():
    once = fold_weight_norm({"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.randn(3, 4), "a.bias": torch.ones(3)})
    twice = fold_weight_norm(once)
    assert set(once) == {"a.weight", "a.bias"}
    assert all(twice[key] is once[key] for key in once)


def test_the_length_of_the_direction_does_not_matter_and_g_is_the_norm():
    g, v = torch.rand(3, 1, 1) + 0.5, torch.randn(3, 4, 5)
    weight = fold_weight_norm({"weight_g": g, "weight_v": v})["weight"]
    longer = fold_weight_norm({"weight_g": g, "weight_v": 8 * v})["weight"]
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), g.flatten())
    torch.testing.assert_close(weight, longer)


def test_low_precision_pairs_become_float32():
    g, v = torch.rand(3, 1).bfloat16(), torch.randn(3, 64).bfloat16()
    exact = g.double() * v.double() / v.double().norm(dim=1, keepdim=True)
    weight = fold_weight_norm({"weight_g": g, "weight_v": v})["weight"]
    assert weight.dtype == torch.float32
    assert relative_error(weight, exact) < 1e-7


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ("a.weight_g", "a.weight_v"),
        ("a.weight_v", "a.weight_g"),
        ("a.parametrizations.weight.original0", "a.parametrizations.weight.original1"),
        ("a.parametrizations.weight.original1", "a.parametrizations.weight.original0"),
    ],
)
def test_half_a_pair_is_refused_by_name(present, missing):
    with pytest.raises(CheckpointError, match=f"{present} needs {missing}"):
        fold_weight_norm({present: torch.ones(3, 1), "b.weight": torch.ones(3)})


@pytest.mark.parametrize("weight_first", [True, False])
def test_a_pair_beside_its_plain_weight_is_refused(weight_first):
    entries = {"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.ones(3, 2)}
    plain = {"a.weight": torch.ones(3, 2)}
    with pytest.raises(CheckpointError, match=r"a\.weight_g and a\.weight"):
        fold_weight_norm(plain | entries if weight_first else entries | plain)


def test_a_norm_over_other_dims_is_refused():
    with pytest.raises(CheckpointError, match=r"a\.weight_g has shape \(1, 2\)"):
        fold_weight_norm({"a.weight_g": torch.ones(1, 2), "a.weight_v": torch.ones(3, 2)})


@needs_larger
def test_folding_the_official_file_gives_the_official_folded_file():
    folded, (official, _) = fold_weight_norm(tensors("e_dac_weights_gv")[0]), tensors("e_dac_weights_fused")
    assert set(folded) == set(official)
    assert max(relative_error(folded[key], official[key]) for key in official) < 1e-7


def test_folding_the_full_size_table_gives_the_published_one():
    unfused = key_table("audio_vae (unfused weight-norm variant)")
    folded = fold_weight_norm({key: torch.empty(shape, device="meta") for key, shape in unfused.items()})
    assert {key: tuple(tensor.shape) for key, tensor in folded.items()} == key_table("audio_vae")
