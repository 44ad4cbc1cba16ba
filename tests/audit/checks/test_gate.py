"""Every check of the gate refuses alone, and the deployed runtime has a say in the accuracies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hardroute import Prediction, evaluate
from hardroute.audit.checks.gate import decide
from hardroute.audit.checks.sanity import Sanity, inspect
from hardroute.audit.checks.strength import Comparison, Strength
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.replay import Agreement, replay, worst_case
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE
from hardroute.runtime.clips import to_network
from tests.support.audit_models import answers, eight_bit_clips, mixture
from tests.support.watched import baseline, prediction

EPS = 1 / 255


@dataclass(frozen=True)
class Found:
    evaluation: Evaluation
    agreement: Agreement
    sanity: Sanity
    policy: Policy

    def failed(self) -> list[str]:
        verdict = decide(self.evaluation, self.agreement, self.sanity, self.policy)
        names = [check.name for check in verdict.checks if not check.passed]
        assert verdict.passed is (not names)
        return names


def with_bounds(policy: Policy, **bounds: float | None) -> Policy:
    return policy.model_copy(update={"thresholds": policy.thresholds.model_copy(update=bounds)})


@pytest.fixture(scope="module")
def sound() -> Found:
    """A mixture that passes with no room to spare: the bounds are what was measured."""
    model, x = mixture(experts=3, classes=3), eight_bit_clips(60)
    y = answers(model, x)
    evaluation = evaluate(model, x, y, eps=(EPS,), suite=["fgsm", "pgd-margin"], steps=4)
    same = np.ones(60, bool)
    right = evaluation.adversarial_label[EPS] == evaluation.labels
    agreement = Agreement(same, {EPS: same}, evaluation.clean, {EPS: right}, baseline())
    policy = Policy.load("standard")
    policy = policy.model_copy(update={"attacks": policy.attacks.model_copy(update={"eps": (1,), "gate_eps": 1})})
    robust = Proportion.of(worst_case(evaluation, agreement, EPS))
    assert 0.1 < robust.share < 0.95
    policy = with_bounds(policy, clean_accuracy=Proportion(60, 60).low, robust_accuracy=robust.low)
    # The experts have nothing in common, so a second choice is no better than chance.
    policy = with_bounds(policy, min_second_choice=0.0)
    return Found(evaluation, agreement, inspect(model, x, y, evaluation.robust[EPS], EPS, steps=4), policy)


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
    assert replace(sound, policy=with_bounds(sound.policy, **bounds)).failed() == [name]


def strength(*comparisons: Comparison, noise: int = 0) -> Strength:
    return Strength((Comparison("half", "all", 0, 3), *comparisons), Proportion(noise, 24), 24)


SIGNS: list[tuple[str, dict[str, Any]]] = [
    ("usable gradients", {"dead_gradients": Proportion(4, 60)}),
    ("usable router gradients", {"dead_router": Proportion(4, 60)}),
    ("unsaturated outputs", {"saturated": Proportion(20, 60)}),
    ("unsaturated outputs", {"probabilities": True}),
    ("nothing at eps 0", {"still": Proportion(23, 24)}),
    ("noise is weaker", {"strength": strength(noise=1)}),
    ("stronger is stronger", {"strength": strength(Comparison("one step", "ten", 8, 0))}),
    ("attacks bite", {"far": Proportion(50, 60)}),
    ("repeatable", {"repeat_difference": 1e-3}),
    ("repeatable", {"repeat_difference": float("nan")}),
    ("clips independent", {"batch_difference": 1e-2}),
    ("ready to serve", {"training": ("router.norm",)}),
]


@pytest.mark.parametrize(("name", "signs"), SIGNS)
def test_each_sign_refuses_alone(sound: Found, name: str, signs: dict[str, Any]) -> None:
    assert replace(sound, sanity=replace(sound.sanity, **signs)).failed() == [name]


def test_a_surprise_counts_against_all_comparisons_together(sound: Found) -> None:
    """p is 1/128: below 1 % for one comparison, not for the worse of two."""
    seven = strength(Comparison("one step", "ten", 7, 0))
    assert replace(sound, sanity=replace(sound.sanity, strength=seven)).failed() == []
    alone = replace(seven, comparisons=seven.comparisons[1:])
    assert replace(sound, sanity=replace(sound.sanity, strength=alone)).failed() == ["stronger is stronger"]


def test_without_a_bound_a_second_choice_must_beat_chance(sound: Found) -> None:
    at = replace(sound, policy=with_bounds(sound.policy, min_second_choice=None))
    for share, failed in ((Proportion(30, 40), []), (Proportion(14, 40), ["weakest expert"])):
        second = (Proportion(9, 10), share, Proportion(0, 9))  # too few clips to judge the last by
        assert replace(at, sanity=replace(sound.sanity, second=second)).failed() == failed
    assert replace(at, sanity=replace(sound.sanity, second=())).failed() == []


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
    assert replace(sound, evaluation=changed).failed() == ["gradients lead"]
    square[at[0]] = True  # one of 60 clips may be luck
    assert replace(sound, evaluation=changed).failed() == []


def test_accuracies_count_with_the_lower_end_of_the_interval(sound: Found) -> None:
    policy = with_bounds(sound.policy, clean_accuracy=0.95)  # 60 of 60, yet the lower end is 94 %
    assert Proportion.of(sound.evaluation.clean).share == 1
    assert replace(sound, policy=policy).failed() == ["clean accuracy"]


def test_a_collapsed_router_is_refused(sound: Found) -> None:
    collapsed = replace(sound.evaluation, clean_route=np.zeros(60, int))
    assert replace(sound, evaluation=collapsed).failed() == ["router load"]


@pytest.mark.parametrize("where", ["clean", "replayed"])
def test_a_runtime_that_answers_otherwise_is_refused(sound: Found, where: str) -> None:
    differs = np.arange(60) >= 2
    change: dict[str, Any] = {where: differs if where == "clean" else {EPS: differs}}
    assert replace(sound, agreement=replace(sound.agreement, **change)).failed() == ["deployed = audited"]


def test_what_the_runtime_gets_wrong_is_wrong(sound: Found) -> None:
    wrong = np.zeros(60, bool)
    on_replay = replace(sound, agreement=replace(sound.agreement, replayed_right={EPS: wrong}))
    assert on_replay.failed() == ["robust accuracy"]
    unattacked = replace(sound, agreement=replace(sound.agreement, clean_right=wrong))
    assert unattacked.failed() == ["clean accuracy", "robust accuracy"]


def test_sentences_name_counts_and_bounds(sound: Found) -> None:
    checks = decide(sound.evaluation, sound.agreement, sound.sanity, sound.policy).checks
    robust = next(check for check in checks if check.name == "robust accuracy")
    assert "2 attacks at eps 1/255" in robust.sentence and "of 60 clips" in robust.sentence


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
