"""Gradients in half precision, compared with fp32 layer by layer: a wrong one is caught, named and computed in fp32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hardroute.models import ExpertSpec, ModelSpec, VideoMoE, build_model, prove_gradients
from hardroute.models.half_precision import LARGEST_ERROR, keep_in_fp32, measure
from hardroute.models.router import ConstantRouter

CLIPS = torch.rand(4, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Wrong(torch.autograd.Function):
    """x w for x (N, I) and w (I, O), whose gradients are wrong where it computes in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, planted: dict[str, float]) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.planted = planted
        return x @ w * (1 + planted.get("output", 0.0) if x.dtype == torch.bfloat16 else 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, w = ctx.saved_tensors
        planted = ctx.planted if x.dtype == torch.bfloat16 else {}
        to_x, to_w = gradients[0] @ w.T, x.T @ gradients[0]
        return (
            to_x * (1 + planted.get("input gradient", 0.0)),
            to_w * (1 + planted.get("weight gradient", 0.0)),
            None,
        )


class Faulty(nn.Linear):
    """A linear layer of which some gradients are wrong in half precision: by the factors planted."""

    planted: dict[str, float]

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.bfloat16()
        return Wrong.apply(x, self.weight.T.to(x.dtype), self.planted) + self.bias


class Network(nn.Module):
    """Clips -> logits, by a sound layer and one that is as good as it is told to be."""

    def __init__(self, **planted: float) -> None:
        super().__init__()
        self.sound = nn.Linear(3 * 4 * 8 * 8, 6)
        self.faulty = Faulty(6, 2)
        self.faulty.planted = {name.replace("_", " "): factor for name, factor in planted.items()}

    def forward(self, x: Tensor) -> Tensor:
        return self.faulty(self.sound(x.flatten(1)))


@pytest.mark.parametrize("what", ["weight gradient", "input gradient", "output"])
@pytest.mark.parametrize("factor", [0.2, -1.0, torch.inf, torch.nan])
def test_a_planted_wrong_gradient_is_caught_and_computed_right(what: str, factor: float) -> None:
    torch.manual_seed(0)
    model = VideoMoE(ConstantRouter(), [Network(**{what.replace(" ", "_"): factor})])
    found = {error.layer: error for error in prove_gradients(model, [CLIPS], torch.bfloat16)}
    assert set(found) == {"experts.0.sound", "experts.0.faulty"}
    assert not found["experts.0.sound"].failed and found["experts.0.faulty"].failed
    if what != "output":
        assert found["experts.0.faulty"].worst[0] == what
    # Once it computes in fp32 its gradients are right, within autocast too.
    assert not [error for error in prove_gradients(model, [CLIPS], torch.bfloat16) if error.failed]
    with torch.autocast("cpu", torch.bfloat16):
        assert model.get_submodule("experts.0.faulty")(torch.rand(1, 6)).dtype == torch.float32


def test_an_attack_does_not_ask_for_the_gradients_of_weights() -> None:
    for planted, failed in (({"weight_gradient": -1.0}, False), ({"input_gradient": -1.0}, True)):
        torch.manual_seed(0)
        model = VideoMoE(ConstantRouter(), [Network(**planted)])
        found = prove_gradients(model, [CLIPS], torch.bfloat16, weights=False)
        assert any(error.failed for error in found) == failed
        assert all(set(error.errors) == {"output", "input gradient"} for error in found)


def test_sound_layers_stay_in_half_precision_and_nothing_is_touched() -> None:
    torch.manual_seed(0)
    model = VideoMoE(ConstantRouter(), [Network()])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = prove_gradients(model, [CLIPS], torch.bfloat16)
    assert all(0 < error.worst[1] < LARGEST_ERROR / 5 for error in found)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(part._forward_hooks for part in model.modules())
    with torch.autocast("cpu", torch.bfloat16):
        assert model.get_submodule("experts.0.sound")(torch.rand(1, 768)).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["r3d18", "tsm"])
def test_every_convolution_norm_and_linear_layer_of_a_network_is_measured(kind: str) -> None:
    spec = ExpertSpec(kind=kind, width=2, blocks=(1, 1, 0, 0))
    model = build_model(ModelSpec(classes=2, experts=(spec, spec)))
    names = {name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv3d, nn.BatchNorm3d, nn.Linear))}
    found = prove_gradients(model, [CLIPS], torch.bfloat16)
    assert {error.layer for error in found} == names
    assert all("weight gradient" in error.errors and "input gradient" in error.errors for error in found)


def test_layers_in_fp32_keep_their_names_weights_and_copies() -> None:
    torch.manual_seed(0)
    model = build_model(ModelSpec(classes=2, experts=(ExpertSpec(width=2, blocks=(1, 0, 0, 0)),)))
    names = list(model.state_dict())
    right = model.experts[0](CLIPS)
    keep_in_fp32(model, ["experts.0.stem.0"])
    keep_in_fp32(model, ["experts.0.stem.0"])
    assert list(model.state_dict()) == names
    for each in (model, copy.deepcopy(model)):
        assert isinstance(each.get_submodule("experts.0.stem.0"), nn.Conv3d)
        with torch.autocast("cpu", torch.bfloat16):
            assert each.get_submodule("experts.0.stem.0")(CLIPS).dtype == torch.float32
    torch.testing.assert_close(model.train().experts[0](CLIPS), right)


def test_a_layer_is_measured_at_the_shape_that_it_gets() -> None:
    class Depth(nn.Conv3d):
        """Wrong for clips of two frames alone, as a kernel may be."""

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            wrong = x.shape[2] == 2 and torch.is_autocast_enabled("cpu")
            return out + (out - out.detach()) if wrong else out  # twice the gradient

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Depth(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    for frames, failed in ((4, False), (2, True)):
        (error,) = measure(Network(), torch.rand(2, 3, frames, 8, 8), torch.bfloat16)
        assert error.failed == failed, frames
