"""IoU and Lips against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardroute import evaluate
from hardroute.audit.evaluation.measures import BINS, Measures, distribution, iou, slope, summary
from tests.support.audit_models import Linear, answers, eight_bit_clips, mixture


def test_iou_of_two_classes_in_closed_form() -> None:
    before, after = np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([[0.6, 0.4], [0.5, 0.5]])
    assert iou(before, after) == pytest.approx([0.7 / 1.3, 1.0])
    # Softmax forgets a shift; far apart, nothing is shared.
    assert iou(before, after + 7) == pytest.approx([0.7 / 1.3, 1.0])
    assert iou(np.array([[900.0, 0]]), np.array([[0, 900.0]])) == pytest.approx([0])
    assert np.isnan(iou(np.array([[np.nan, 0]]), np.array([[0, 1.0]]))).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_iou_is_the_total_variation_in_another_scale(seed: int, classes: int) -> None:
    torch.manual_seed(seed)
    before, after = torch.randn(2, 5, classes, dtype=torch.float64).mul(3)
    distance = 0.5 * (before.softmax(1) - after.softmax(1)).abs().sum(1).numpy()
    assert iou(before.numpy(), after.numpy()) == pytest.approx((1 - distance) / (1 + distance))
    assert iou(before.numpy(), after.numpy()) == pytest.approx(iou(after.numpy(), before.numpy()))


def test_slope_of_a_diagonal_map_is_its_factor() -> None:
    x, moved = np.zeros((3, 4)), np.eye(3, 4) * [[2.0], [3.0], [0.0]]
    distance = np.linalg.norm(moved, axis=1)
    assert slope(5 * x, 5 * moved, distance)[:2] == pytest.approx([5, 5])
    assert np.isnan(slope(x, moved, distance)[2])  # 0 / 0
    assert np.isnan(slope(x, np.full((3, 4), np.inf), distance)).all()


def test_summary_leaves_out_what_was_not_measured() -> None:
    values = np.array([1.0, 2, 3, 4, np.nan])
    found = summary(values)
    half = 1.959964 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert found == {
        "n": 4,
        "mean": 2.5,
        "low": pytest.approx(2.5 - half),
        "high": pytest.approx(2.5 + half),
        "median": 2.5,
        "max": 4.0,
    }
    assert summary(np.array([np.nan]))["mean"] is None and summary(np.array([np.nan]))["n"] == 0
    histogram = distribution(np.array([0.0, 0.01, 1.0, np.nan]))["histogram"]
    assert len(histogram) == BINS and (histogram[0], histogram[-1], sum(histogram)) == (2, 1, 3)


def test_an_evaluation_measures_the_perturbed_clips() -> None:
    """On linear parts FGSM's perturbation is known: eps times the sign of the gradient, none cut by [0, 1]."""
    torch.manual_seed(1)
    model, x, eps = mixture(experts=2, classes=2), eight_bit_clips(12), 4 / 255
    y = answers(model, x)
    y[0] = 1 - y[0]  # wrong unattacked: not attacked, not measured
    found = evaluate(model, x, y, eps=(eps,), suite=["pgd-r"], steps=1).measures["pgd-r"][eps]
    assert isinstance(found, Measures) and np.isnan(found.router_iou[0]) and not np.isnan(found.model_iou[1:]).any()
    router = model.router
    assert isinstance(router, Linear)
    largest = float(torch.linalg.matrix_norm(router.layer.weight.detach(), 2))
    assert (found.router_slope[1:] <= largest + 1e-6).all() and (found.router_slope[1:] > 0).all()
    assert ((found.router_iou[1:] >= 0) & (found.router_iou[1:] <= 1)).all()
