"""A router cannot look steady by the size of its scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.evaluator import evaluate
from hardroute.audit.evaluation.subject import Scaled, Subject, factor_for, spread
from hardroute.models import VideoMoE
from tests.audit.test_cli import Audited
from tests.support.audit_models import answers, eight_bit_clips, mixture

EPS = 2 / 255


class Scores(nn.Module):
    """A router that looks the scores of a clip up: its first pixel is the row."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[x.flatten(1)[:, 0].long()]


def looked_up(rows: list[list[float]]) -> tuple[VideoMoE, Tensor]:
    x = torch.zeros(len(rows), 3, 1, 2, 2)
    x[:, 0, 0, 0, 0] = torch.arange(len(rows))
    return VideoMoE(Scores(torch.tensor(rows)), [nn.Identity() for _ in rows[0]]), x


def with_scores_times(model: VideoMoE, factor: float) -> VideoMoE:
    return VideoMoE(Scaled(model.router, factor), model.experts).eval()


def test_the_spread_is_that_of_the_differences_between_experts() -> None:
    # Deviations 3, -3 and 1, -1: what both scores share does not count.
    assert spread(*looked_up([[7.0, 1.0], [100.0, 98.0]])) == pytest.approx(math.sqrt((9 + 9 + 1 + 1) / 4))


@pytest.mark.parametrize("rows", [[[5.0, 5.0]], [[3.0]], [[math.nan, 1.0]], [[math.inf, 1.0]]])
def test_scores_without_a_size_are_left_as_they_are(rows: list[list[float]]) -> None:
    assert factor_for(spread(*looked_up(rows))) == 1


@pytest.mark.parametrize("size", [1e-6, 0.003, 0.7, 1.0, 1.5, 40.0, 1e5])
def test_the_factor_is_a_power_of_two_that_brings_the_spread_near_one(size: float) -> None:
    factor = factor_for(size)
    assert math.frexp(factor)[0] == 0.5
    assert 2**-0.51 < factor * size < 2**0.51


def test_scaling_changes_no_route_and_no_logit() -> None:
    torch.manual_seed(0)
    model, x = mixture(experts=4, classes=3), eight_bit_clips(64)
    small = with_scores_times(model, 2.0**-9)
    known, subject = Subject.of(model, x), Subject.of(small, x)
    assert subject.spread == known.spread * 2.0**-9 and subject.factor == known.factor * 2.0**9
    assert subject.model is not small and torch.equal(subject.model.router(x), known.factor * model.router(x))
    assert torch.equal(subject.model.outputs(x).route, model.outputs(x).route)
    assert torch.equal(subject.model(x), model(x))
    fitting = with_scores_times(model, known.factor)
    assert Subject.of(fitting, x).model is fitting and Subject.of(fitting, x).factor == 1


def test_slopes_are_reported_of_the_scores_as_they_were_found() -> None:
    """An attack on the subject's own model finds the same clips; only what is said of the scores differs."""
    torch.manual_seed(0)
    model, x = mixture(experts=4, classes=3), eight_bit_clips(20)
    small = with_scores_times(model, 2.0**-9)
    subject, y = Subject.of(small, x), answers(model, x)
    found = evaluate(subject.model, x, y, suite=["tla-r"], steps=3)
    slopes, said = (each.measures["tla-r"][8 / 255] for each in (found, subject.as_found(found)))
    x_adv = ATTACKS["tla-r"](subject.model, x, y, steps=3)
    with torch.no_grad():
        moved = (small.router(x_adv) - small.router(x)).double().norm(dim=1) / (x_adv - x).double().flatten(1).norm(
            dim=1
        )
    np.testing.assert_allclose(said.router_slope, moved.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(slopes.router_slope, said.router_slope * subject.factor)
    np.testing.assert_array_equal(slopes.model_slope, said.model_slope)


class TestSmallScores:
    """Two bundles that answer alike; the router's scores of one are 4,096 times smaller."""

    @pytest.fixture
    def reports(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> list[dict[str, Any]]:
        found = []
        for gain in (1.0, 2.0**-12):
            folder = tmp_path / f"{gain}"
            folder.mkdir()
            audited = Audited(folder, monkeypatch, capsys, gain=gain)
            audited.policy.write_text(audited.policy.read_text().replace('"quick"', '"paper"'))
            audited.run("--thorough")
            found.append(audited.report())
        return found

    def test_are_attacked_as_hard_and_reported_as_small(self, reports: list[dict[str, Any]]) -> None:
        large, small = reports
        for at_large, at_small in zip(large["eps"], small["eps"], strict=True):
            for name, found in at_large["per_attack"].items():
                other = at_small["per_attack"][name]
                assert other["accuracy"] == found["accuracy"], name
                assert other["route_flips"] == found["route_flips"], name
                assert other["router_iou"] == found["router_iou"], name
                assert other["router_slope"]["mean"] == pytest.approx(found["router_slope"]["mean"] * 2**-12)
        assert small["router"]["factor"] == 4096 * large["router"]["factor"]
        assert small["router"]["spread"] == pytest.approx(large["router"]["spread"] / 4096)

    def test_would_blind_an_attack_that_adds_losses(self) -> None:
        torch.manual_seed(1)
        model, x = mixture(experts=4, classes=3), eight_bit_clips(200)
        y = answers(model, x)
        flips = []
        for factor in (1.0, 2.0**-12):
            twin = with_scores_times(model, factor)
            x_adv = ATTACKS["j-tlga"](twin, x, y, 8 * EPS, 10, 0)
            flips.append(int((twin.outputs(x_adv).route != twin.outputs(x).route).sum()))
        assert flips[0] > 1.5 * flips[1], np.array(flips)
