"""Adapters: which layers they are beside, what they add, what they share, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mova_core.errors import CheckpointError, ConfigError, ShapeError
from mova_core.model.mova import Mova
from mova_core.training.adapters import Adapters, fresh, part_of, targets
from mova_core.training.noise import generator
from mova_core.training.step import training_step
from tests.fixtures.tiny_model import TINY, tiny_inputs, tiny_model
from tests.fixtures.training import PARTS, parameters, shown


def test_every_linear_of_the_blocks_and_the_bridge_is_a_target() -> None:
    video, audio, bridge = TINY.video.layers * 10, TINY.audio.layers * 10, TINY.bridge.layers * 8
    counts = {part: sum(part_of(f"{name}.") == part for name in targets(TINY, PARTS)) for part in PARTS}
    assert counts == {"high": video, "low": video, "audio": audio, "bridge": bridge}
    attention = targets(TINY, PARTS, "attention")
    assert len(attention) == 2 * TINY.video.layers * 8 + TINY.audio.layers * 8 + bridge
    assert not any("ffn" in name or "embedding" in name or "head" in name for name in attention)


def test_new_adapters_change_nothing() -> None:
    model, inputs = tiny_model(), tiny_inputs()
    plain = inputs.run(model)
    with Adapters.attach(model, fresh(TINY, PARTS, 2, generator(1)), 2.0).beside():
        assert all(map(torch.equal, inputs.run(model), plain))


def test_adapters_are_what_the_same_change_of_the_weights_would_be() -> None:
    state, merged = parameters(), tiny_model()
    adapters = Adapters.attach(tiny_model(), state, 3.0)
    for layer, pair in adapters.pairs.items():
        weight = merged.get_submodule(layer.removeprefix("video_dit.")).weight
        weight.add_(pair.up.detach() @ pair.down.detach(), alpha=3.0 / 2)
    with adapters.beside():
        ours = tiny_inputs().run(adapters.model)
    assert not torch.equal(ours[0], tiny_inputs().run(adapters.model)[0])  # and off again
    for one, other in zip(ours, tiny_inputs().run(merged), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_both_experts_share_the_parameters_of_sound_and_bridge_and_keep_the_others_aside() -> None:
    state = parameters()
    high, low = (Adapters.attach(tiny_model(), state, 2.0, expert=expert) for expert in ("high", "low"))
    ours, theirs = dict(high.named_parameters()), dict(low.named_parameters())
    shared = ours.keys() & theirs.keys()
    assert {part_of(name) for name in shared} == {"audio", "bridge"}
    assert all(ours[name] is theirs[name] is state[name] for name in shared)
    assert {part_of(name) for name in high.aside} == {"low"}
    assert {part_of(name) for name in low.aside} == {"high"}
    assert ours.keys() | high.aside.keys() == state.keys()


def test_plain_tensors_are_copied_to_float32() -> None:
    state = {name: parameter.detach().bfloat16() for name, parameter in parameters().items()}
    kept = {name: tensor.clone() for name, tensor in state.items()}
    adapters = Adapters.attach(tiny_model(), state, 2.0)
    for name, parameter in adapters.named_parameters():
        assert parameter.dtype == torch.float32
        parameter.data.add_(1)
        assert torch.equal(state[name], kept[name])


@pytest.mark.parametrize("parts", [("high",), ("audio",), ("bridge",), ("low", "audio")], ids="+".join)
def test_every_adapter_of_the_chosen_parts_gets_a_gradient_and_no_other(parts: tuple[str, ...]) -> None:
    expert = "low" if "low" in parts else "high"
    adapters = Adapters.attach(tiny_model(), parameters(*parts), 2.0, expert=expert)  # type: ignore[arg-type]
    training_step(adapters.model, adapters, **shown(), fps=24.0)  # type: ignore[arg-type]
    assert {part_of(name) for name, _ in adapters.named_parameters()} == set(parts)
    for name, parameter in adapters.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_add_up_over_a_batch_and_over_steps() -> None:
    """Two samples in a batch are two steps at half the scale."""
    model, given = tiny_model(), shown(batch=2)
    together, apart = (Adapters.attach(model, parameters(), 2.0) for _ in range(2))
    training_step(model, together, **given, fps=24.0)  # type: ignore[arg-type]
    for row in (0, 1):
        one = {name: tensor[row : row + 1] for name, tensor in given.items()}
        training_step(model, apart, **one, fps=24.0, scale=0.5)  # type: ignore[arg-type]
    for (name, one), (_, other) in zip(together.named_parameters(), apart.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=2e-4, atol=1e-6, msg=name)


def test_a_caller_in_inference_mode_gets_the_same_gradients() -> None:
    """As code that ComfyUI runs is, whose tensors autograd refuses to keep."""
    model = tiny_model()
    plain = Adapters.attach(model, parameters(), 2.0)
    training_step(model, plain, **shown(), fps=24.0)  # type: ignore[arg-type]
    with torch.inference_mode():
        state = {name: parameter.detach().clone() for name, parameter in parameters().items()}
        inside = Adapters.attach(model, state, 2.0)
        given = {name: tensor.clone() for name, tensor in shown().items()}
        training_step(model, inside, **given, fps=24.0)  # type: ignore[arg-type]
    for (name, one), (_, other) in zip(plain.named_parameters(), inside.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]


def test_adapters_of_another_model_are_refused() -> None:
    """Or the step would run without them and say nothing."""
    adapters = Adapters.attach(tiny_model(), parameters(), 2.0)
    with pytest.raises(ConfigError, match="another model"):
        training_step(tiny_model(), adapters, **shown(), fps=24.0)  # type: ignore[arg-type]


def test_a_step_leaves_no_hook_and_the_model_as_it_was() -> None:
    model, inputs = tiny_model(), tiny_inputs()
    plain = inputs.run(model)
    adapters = Adapters.attach(model, parameters(), 2.0)
    training_step(model, adapters, **shown(), fps=24.0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="latents"):
        training_step(model, adapters, **{**shown(), "audio_latents": torch.zeros(1, 1, 1)}, fps=24.0)  # type: ignore[arg-type]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(map(torch.equal, inputs.run(model), plain))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 48)}, "no LoRA tensor of MOVA"),
        ({"video_dit.blocks.0.self_attn.q.lora_C.weight": torch.zeros(2, 48)}, "no LoRA tensor of MOVA"),
        ({"video_dit.blocks.9.self_attn.q.lora_A.weight": torch.zeros(2, 48)}, "no linear layer"),
        ({"video_dit.blocks.0.norm3.lora_A.weight": torch.zeros(2, 48)}, "no linear layer"),
        ({"video_dit.blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 48)}, "alone"),
        (
            {
                "video_dit.blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 48, dtype=torch.int8),
                "video_dit.blocks.0.self_attn.q.lora_B.weight": torch.zeros(48, 2, dtype=torch.int8),
            },
            "torch.int8",
        ),
        (
            dict.fromkeys(
                ("video_dit.blocks.0.ffn.0.lora_A.weight", "video_dit.blocks.0.ffn.0.lora_B.weight"), torch.zeros(2, 9)
            ),
            "48",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        Adapters.attach(tiny_model(), change, 2.0)


def test_impossible_wishes_are_named() -> None:
    model: Mova = tiny_model()
    with pytest.raises(ConfigError, match="'middle'"):
        Adapters.attach(model, parameters(), 2.0, expert="middle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="alpha is 0"):
        Adapters.attach(model, parameters(), 0.0)
    with pytest.raises(ConfigError, match="none of"):
        Adapters.attach(model, parameters("low"), 2.0, expert="high")
    with pytest.raises(ConfigError, match="rank is 0"):
        fresh(TINY, PARTS, 0, generator())
    for parts in ((), ("text",)):
        with pytest.raises(ConfigError, match="choose of"):
            targets(TINY, parts)
