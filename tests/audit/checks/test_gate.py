"""Every check of the gate refuses alone, and the deployed runtime has a say in the accuracies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hardroute import Prediction, evaluate
from hardroute.audit.checks import CHECKS, Check, Context, Measurements, at_most, decide, measure
from hardroute.audit.checks.extremes import Far
from hardroute.audit.checks.gate import Measurement
from hardroute.audit.checks.gradients import Saturation
from hardroute.audit.checks.second_choice import Second
from hardroute.audit.checks.strength import Comparison, Strength
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.replay import Agreement, replay, worst_case
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE
from hardroute.runtime.clips import to_network
from tests.support.audit_models import answers, eight_bit_clips, mixture, with_attacks, with_bounds
from tests.support.watched import baseline, prediction

EPS = 1 / 255


@dataclass(frozen=True)
class Found:
    """What an audit found; `signs` take the place of what checks measure on the model."""

    context: Context
    signs: Measurements

    @property
    def evaluation(self) -> Evaluation:
        return self.context.evaluation

    def but(self, **changes: Any) -> Found:
        """The same with another evaluation, agreement or policy."""
        return replace(self, context=replace(self.context, **changes))

    def bounds(self, **bounds: float | None) -> Found:
        return self.but(policy=with_bounds(self.context.policy, **bounds))

    def sign(self, name: str, measured: Any) -> Found:
        each = {**self.signs.each, name: replace(self.signs.each[name], measured=measured)}
        return replace(self, signs=replace(self.signs, each=each))

    def measurements(self) -> Measurements:
        """What follows from evaluation and agreement anew, and the rest as it was measured once."""
        rows = [row for row in (CHECKS[name] for name in NOT_OF_THE_MODEL) if isinstance(row, Check)]
        found = ((row, row.measure(self.context)) for row in rows)
        anew = {row.name: Measurement(row, measured) for row, measured in found if measured is not None}
        return replace(self.signs, each={**self.signs.each, **anew})

    def failed(self) -> list[str]:
        verdict = decide(self.measurements(), self.context.policy)
        names = [check.name for check in verdict.checks if not check.passed]
        assert verdict.passed is (not names)
        return names


NOT_OF_THE_MODEL = ("clean accuracy", "robust accuracy", "router load", "deployed = audited", "gradients lead")


@pytest.fixture(scope="module")
def sound() -> Found:
    """A mixture that passes with no room to spare: the bounds are what was measured."""
    model, x = mixture(experts=3, classes=3), eight_bit_clips(60)
    y = answers(model, x)
    evaluation = evaluate(model, x, y, eps=(EPS,), suite=["fgsm", "pgd-margin"], steps=4)
    same = np.ones(60, bool)
    right = evaluation.adversarial_label[EPS] == evaluation.labels
    agreement = Agreement(same, {EPS: same}, evaluation.clean, {EPS: right}, baseline())
    policy = with_attacks(Policy.load("standard"), eps=(1,), gate_eps=1, steps=4)
    robust = Proportion.of(worst_case(evaluation, agreement, EPS))
    assert 0.1 < robust.share < 0.95
    policy = with_bounds(policy, clean_accuracy=Proportion(60, 60).low, robust_accuracy=robust.low)
    # The experts have nothing in common, so a second choice is no better than chance.
    policy = with_bounds(policy, min_second_choice=0.0)
    context = Context(model, x, y, evaluation, agreement, policy)
    return Found(context, measure(context))


def test_a_sound_model_passes_at_its_own_bounds(sound: Found) -> None:
    assert sound.failed() == []


BOUNDS: list[tuple[str, dict[str, float]]] = [
    ("clean accuracy", {"clean_accuracy": 0.97}),
    ("robust accuracy", {"robust_accuracy": 0.97}),
    ("router load", {"min_load_entropy": 1.0}),
    ("weakest expert", {"min_second_choice": 0.9}),
]


@pytest.mark.parametrize(("name", "bounds"), BOUNDS)
def test_each_bound_refuses_alone(sound: Found, name: str, bounds: dict[str, float]) -> None:
    assert sound.bounds(**bounds).failed() == [name]


def strength(*comparisons: Comparison) -> Strength:
    return Strength((Comparison("half", "all", 0, 3), *comparisons), 24)


SIGNS: list[tuple[str, Any]] = [
    ("usable gradients", Proportion(4, 60)),
    ("usable router gradients", Proportion(4, 60)),
    ("unsaturated outputs", Saturation(Proportion(20, 60), False)),
    ("unsaturated outputs", Saturation(Proportion(0, 60), True)),
    ("nothing at eps 0", Proportion(23, 24)),
    ("noise is weaker", Proportion(1, 24)),
    ("stronger is stronger", strength(Comparison("one step", "ten", 8, 0))),
    ("attacks bite", Far(Proportion(50, 60), 1 / 3)),
    ("repeatable", 1e-3),
    ("repeatable", float("nan")),
    ("clips independent", 1e-2),
    ("ready to serve", ("router.norm",)),
]


@pytest.mark.parametrize(("name", "measured"), SIGNS)
def test_each_sign_refuses_alone(sound: Found, name: str, measured: Any) -> None:
    assert sound.sign(name, measured).failed() == [name]


def test_the_rows_stand_in_the_order_of_the_verdict(sound: Found) -> None:
    """Others read the report by these names; a suite with neither noise nor sources asks for three fewer."""
    assert [check.name for check in decide(sound.signs, sound.context.policy).checks] == [
        "clean accuracy",
        "robust accuracy",
        "router load",
        "deployed = audited",
        "usable gradients",
        "usable router gradients",
        "unsaturated outputs",
        "attacks bite",
        "nothing at eps 0",
        "stronger is stronger",
        "noise is weaker",
        "weakest expert",
        "repeatable",
        "clips independent",
        "ready to serve",
    ]
    assert set(sound.signs.record()) == {
        "training", "repeat_difference", "batch_difference", "dead_gradients", "dead_router", "saturated",
        "probabilities", "still", "far", "clips", "comparisons", "noise_only", "second_choice", "chance",
    }  # fmt: skip


def test_a_surprise_counts_against_all_comparisons_together(sound: Found) -> None:
    """p is 1/128: below 1 % for one comparison, not for the worse of two."""
    seven = strength(Comparison("one step", "ten", 7, 0))
    assert sound.sign("stronger is stronger", seven).failed() == []
    alone = replace(seven, comparisons=seven.comparisons[1:])
    assert sound.sign("stronger is stronger", alone).failed() == ["stronger is stronger"]


def test_without_a_bound_a_second_choice_must_beat_chance(sound: Found) -> None:
    at = sound.bounds(min_second_choice=None)
    for share, failed in ((Proportion(30, 40), []), (Proportion(14, 40), ["weakest expert"])):
        second = (Proportion(9, 10), share, Proportion(0, 9))  # too few clips to judge the last by
        assert at.sign("weakest expert", Second(second, 1 / 3)).failed() == failed
    assert at.sign("weakest expert", Second((), 1 / 3)).failed() == []


def test_clips_that_only_attacks_without_gradients_fell_refuse(sound: Found) -> None:
    held = sound.evaluation.robust[EPS]
    at = np.flatnonzero(held)[:2]
    square = held.copy()
    square[at] = False
    changed = replace(
        sound.evaluation,
        attacks=(*sound.evaluation.attacks, "square"),
        per_attack=sound.evaluation.per_attack | {"square": {EPS: square}},
    )
    assert sound.but(evaluation=changed).failed() == ["gradients lead"]
    square[at[0]] = True  # one of 60 clips may be luck
    assert sound.but(evaluation=changed).failed() == []


def test_accuracies_count_with_the_lower_end_of_the_interval(sound: Found) -> None:
    assert Proportion.of(sound.evaluation.clean).share == 1
    # 60 of 60, yet the lower end is 94 %
    assert sound.bounds(clean_accuracy=0.95).failed() == ["clean accuracy"]


def test_a_collapsed_router_is_refused(sound: Found) -> None:
    collapsed = replace(sound.evaluation, clean_route=np.zeros(60, int))
    assert sound.but(evaluation=collapsed).failed() == ["router load"]


@pytest.mark.parametrize("where", ["clean", "replayed"])
def test_a_runtime_that_answers_otherwise_is_refused(sound: Found, where: str) -> None:
    differs = np.arange(60) >= 2
    change: dict[str, Any] = {where: differs if where == "clean" else {EPS: differs}}
    assert sound.but(agreement=replace(sound.context.agreement, **change)).failed() == ["deployed = audited"]


def test_what_the_runtime_gets_wrong_is_wrong(sound: Found) -> None:
    wrong, agreement = np.zeros(60, bool), sound.context.agreement
    on_replay = sound.but(agreement=replace(agreement, replayed_right={EPS: wrong}))
    assert on_replay.failed() == ["robust accuracy"]
    unattacked = sound.but(agreement=replace(agreement, clean_right=wrong))
    assert unattacked.failed() == ["clean accuracy", "robust accuracy"]


def test_sentences_name_counts_and_bounds(sound: Found) -> None:
    checks = decide(sound.signs, sound.context.policy).checks
    robust = next(check for check in checks if check.name == "robust accuracy")
    assert "2 attacks at eps 1/255" in robust.sentence and "of 60 clips" in robust.sentence


def planted(**cells: Any) -> Check[int]:
    """A row as somebody else would write it."""
    row: Check[int] = Check(
        "planted",
        measure=lambda context: len(context.sample),
        judge=lambda found, policy: at_most(found, policy.attacks.steps),
        describe=lambda found, judged: f"Planted: {found} clips.",
        record=lambda found: {"planted_clips": found},
    )
    return replace(row, **cells)


def test_a_new_row_is_measured_judged_and_recorded(sound: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "planted", planted())
    found = measure(sound.context)
    planted_check = decide(found, sound.context.policy).checks[-1]
    assert (planted_check.name, planted_check.measured, planted_check.bound) == ("planted", 60, 4)
    assert not planted_check.passed and planted_check.sentence == "Planted: 60 clips."
    assert found.record()["planted_clips"] == 60


def test_a_row_that_does_not_apply_is_not_asked(sound: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "planted", planted(measure=lambda context: None))
    assert "planted" not in measure(sound.context).each


def test_two_rows_cannot_record_under_one_name(sound: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "planted", planted(record=lambda found: {"far": found}))
    with pytest.raises(ValueError, match="check planted: another check records far already"):
        measure(sound.context).record()


class Turned(nn.Module):
    """A router whose experts are counted backwards."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.router = router

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.router(x).flip(1)


def test_replay_compares_classes_and_experts_of_the_same_frames() -> None:
    """An engine that is the twin agrees on all; one with two experts swapped agrees on neither's clips."""

    class TorchEngine:
        def __init__(self, model: VideoMoE) -> None:
            self.model = model

        def predict_batch(self, frames: np.ndarray) -> list[Prediction]:
            with torch.no_grad():
                outputs = self.model.outputs(torch.from_numpy(to_network(frames)))
                labels = outputs.deployed.argmax(1).tolist()
                return [prediction(j, label=i) for i, j in zip(labels, outputs.route.tolist(), strict=True)]

    model, x = mixture(experts=2, classes=3), eight_bit_clips(30)
    frames = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy()
    evaluation = evaluate(model, x, answers(model, x), eps=(0.0, EPS), suite=["fgsm"])
    same = replay(TorchEngine(model), frames, evaluation, batch_size=7)  # type: ignore[arg-type]
    assert same.lowest().share == 1 and same.clean_right.all()
    assert (same.replayed_right[EPS] == (evaluation.adversarial_label[EPS] == evaluation.labels)).all()
    swapped = VideoMoE(model.router, [model.experts[1], model.experts[0]])
    other = replay(TorchEngine(swapped), frames, evaluation, batch_size=7)  # type: ignore[arg-type]
    assert other.lowest().share < 0.9
    assert not (worst_case(evaluation, other, EPS) & ~other.clean_right).any()
    # The same answers by experts of other names: right, but not the routes that were audited.
    renamed = VideoMoE(Turned(model.router), [model.experts[1], model.experts[0]])
    routes_differ = replay(TorchEngine(renamed), frames, evaluation)  # type: ignore[arg-type]
    assert routes_differ.clean_right.all()
    assert not routes_differ.clean.any() and not routes_differ.replayed[EPS].any()
