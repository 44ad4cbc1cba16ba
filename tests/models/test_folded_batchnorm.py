"""The copy of a model with its batch norms folded away: the same answers, always those of the present weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hardroute.models import EXPERTS, ExpertSpec, Folded, ModelSpec, RouterSpec, VideoMoE, build_model


def lived_in(**spec: Any) -> VideoMoE:
    """A model whose batch norms have statistics and scales of their own."""
    torch.manual_seed(0)
    expert = spec.pop("kind", "r3d18")
    experts = (ExpertSpec(kind=expert, width=4, blocks=(1, 1, 0, 0)),) * 2
    model = build_model(ModelSpec(classes=3, router=RouterSpec(width=2), experts=experts, **spec))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("spec", [*({"kind": kind} for kind in sorted(EXPERTS)), {"restore": 4}], ids=str)
def test_a_folded_model_answers_as_the_model_in_eval_mode(spec: dict[str, Any]) -> None:
    model, x = lived_in(**spec), torch.rand(3, 3, 8, 16, 16)
    folded = Folded(model).refresh()
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    index = torch.tensor([0, 1, 1])
    model.eval()
    torch.testing.assert_close(folded.router(x), model.router(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded.dispatch(x, index), model.dispatch(x, index), rtol=1e-4, atol=1e-4)


def test_it_follows_the_model_and_leaves_it_alone() -> None:
    model, x = lived_in(), torch.rand(3, 3, 8, 16, 16)
    folded = Folded(model)
    before = folded.refresh().router(x)
    model.train()
    model.router(x)  # moves the running statistics
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = folded.refresh().router(x)
    assert model.training
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, model.eval().router(x), rtol=1e-4, atol=1e-5)


def test_a_batch_norm_that_no_convolution_precedes_stays() -> None:
    lone = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    biased = nn.Sequential(nn.Conv3d(3, 3, 1), nn.BatchNorm3d(3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model, x = VideoMoE(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), [lone, biased]), torch.rand(2, 3, 2, 4, 4)
    model.router(x)
    folded = Folded(model).refresh()
    assert torch.equal(folded.every_expert(x), model.eval().every_expert(x))
