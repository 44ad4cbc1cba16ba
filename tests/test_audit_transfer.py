"""The transfer matrix against single attacks by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audit.attacks import ATTACKS
from audit.transfer import transfer
from runtime.errors import MethodError
from tests.audit_models import answers, eight_bit_clips, mixture

EPS = 4 / 255


def test_the_matrix_is_what_single_attacks_give() -> None:
    models = {"a": mixture(), "b": mixture(), "c": mixture(experts=2)}
    x = eight_bit_clips(50)
    y = answers(models["a"], x)
    y[::5] = (y[::5] + 1) % 4
    found = transfer({"a": models["a"], "b": models["b"]}, models, x, y, eps=EPS, steps=4, batch_size=16)
    assert found.sources == ("a", "b") and found.targets == ("a", "b", "c")
    for source in found.sources:
        x_adv = ATTACKS["pgd-margin"](models[source], x, y, EPS, 4)
        for target, model in models.items():
            clean = (model(x).argmax(1) == y).numpy()
            held = clean & (model(x_adv).argmax(1) == y).numpy()
            assert np.array_equal(found.clean[target], clean)
            assert np.array_equal(found.held[source][target], held)
            assert found.accuracy(source, target).successes == held.sum()
    white, black = found.held["a"]["a"], found.held["b"]["a"]
    assert white.sum() < black.sum() <= found.clean["a"].sum() == 40


def test_models_are_left_as_they_were() -> None:
    model, x = mixture().train(), eight_bit_clips(4)
    transfer({"m": model}, {"m": model}, x, torch.tensor([0, 1, 2, 3]), eps=EPS, steps=2)
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_nothing_to_compare_is_told() -> None:
    with pytest.raises(MethodError, match="at least one source"):
        transfer({}, {"m": mixture()}, eight_bit_clips(2), torch.tensor([0, 1]))
    with pytest.raises(MethodError, match="unknown attack"):
        transfer({"m": mixture()}, {"m": mixture()}, eight_bit_clips(2), torch.tensor([0, 1]), attack="nonsense")
