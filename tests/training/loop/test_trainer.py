"""Schedules, losses, balance, and a trainer that can be killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hardroute.audit.attacks import ATTACKS
from hardroute.models import VideoMoE, build_model
from hardroute.models.router import ConstantRouter
from hardroute.runtime.clips import to_network
from hardroute.runtime.errors import BackendError, DataError, MethodError
from hardroute.training import terms
from hardroute.training.balance import balanced_assignment, load_balance
from hardroute.training.loop.batches import augment, batches
from hardroute.training.loop.optimiser import learning_rate
from hardroute.training.loop.trainer import Trainer
from hardroute.training.losses import finder, inner_attack, weak_experts, within_reach
from hardroute.training.methods import METHODS, find_method
from hardroute.training.run import Run, RunRecord, ValidatedEpoch, best_of, validated
from hardroute.training.settings import FitSettings, settings_from
from tests.support.training import SMALL, Silent, loss_of, train, two_signals


def seen(epoch: int, robust: float, clean: float = 0.5) -> ValidatedEpoch:
    return ValidatedEpoch(
        epoch=epoch, loss={}, clean=clean, robust=robust, under={}, load=(1.0,), load_entropy=1.0,
        attacked_load_entropy=1.0, route_flips=0.0, clips=8,
    )  # fmt: skip


def weights(run: Run) -> dict[str, Tensor]:
    return run.load_resume()


class TestTrainer:
    @pytest.mark.parametrize("stop", [(1, "router", 2), (2, "experts", 3), (2, "moe", 6)])
    def test_a_run_killed_and_resumed_ends_with_the_same_weights(
        self, tmp_path: Path, stop: tuple[int, str, int]
    ) -> None:
        through = train(tmp_path / "through", epochs=2)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", Silent(stop), epochs=2)
        resumed = train(tmp_path / "killed", epochs=2)
        expected = weights(through)
        found = weights(resumed)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert [epoch.epoch for epoch in resumed.metrics] == [1, 2]

    def test_another_seed_gives_other_weights(self, tmp_path: Path) -> None:
        one, other = (weights(train(tmp_path / str(seed), epochs=1, seed=seed)) for seed in (0, 1))
        assert any(not torch.equal(one[name], other[name]) for name in one)

    def test_adversarial_training_turns_to_the_signal_that_an_attack_cannot_repaint(self, tmp_path: Path) -> None:
        last = {}
        for method, epochs in (("plain", 8), ("at-m", 8), ("j-tlat", 5)):
            run = train(tmp_path / method, method=method, epochs=epochs, lr=1e-2, ramp=0.5)
            (*_, last[method]) = validated(run.metrics)
        assert last["plain"].clean > 0.9
        assert last["plain"].robust < 0.3
        # The bright half alone is right in 80 %.
        assert last["at-m"].robust > 0.65
        assert last["j-tlat"].robust > 0.65

    def test_keeps_the_best_epoch_and_the_newest(self, tmp_path: Path) -> None:
        run = train(tmp_path, epochs=3, method="plain")
        assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-0003"]
        assert (tmp_path / "best" / "twin.safetensors").exists()
        assert len(run.metrics) == 3
        assert not list(tmp_path.rglob("*.tmp"))

    def test_the_record_of_the_best_epoch_is_that_of_the_weights_kept_for_it(self, tmp_path: Path) -> None:
        run = Run.create(tmp_path, RunRecord(settings=FitSettings(**SMALL), classes=("a", "b"), tools={}))
        for epoch, robust in enumerate((0.2, 0.5, 0.5, 0.4), start=1):
            model = build_model(run.record.spec)
            torch.nn.init.constant_(model.router.get_parameter("score.bias"), epoch)
            run.save_epoch(model, {"none": torch.zeros(1)}, seen(epoch, robust))
        assert run.best.epoch == 3
        assert run.load_best().router.get_parameter("score.bias")[0] == 3

    def test_equal_robust_accuracy_is_decided_by_the_clean_one(self) -> None:
        assert best_of([seen(1, 0.5, 0.6), seen(2, 0.5, 0.7), seen(3, 0.5, 0.6)]).epoch == 2
        assert best_of([seen(1, 0.5, 0.6), seen(2, 0.6, 0.1)]).epoch == 2

    def test_progress_of_the_run_rises_to_one(self, tmp_path: Path) -> None:
        reporter = Silent()
        train(tmp_path, reporter, epochs=2, shared_start=0.5, inner_steps=1)
        assert reporter.progress == sorted(reporter.progress)
        assert 0 < reporter.progress[0] < 0.2 and reporter.progress[-1] == pytest.approx(1)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
    def test_cuda_is_refused_where_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="cuda"):
            train(tmp_path, device="cuda")

    def test_a_second_run_in_the_same_folder_is_refused(self, tmp_path: Path) -> None:
        record = RunRecord(settings=FitSettings(**SMALL), classes=("a", "b"), tools={})
        Run.create(tmp_path, record)
        with pytest.raises(DataError, match="resume it"):
            Run.create(tmp_path, record)

    def test_a_run_without_an_epoch_has_nothing_to_export(self, tmp_path: Path) -> None:
        run = Run.create(tmp_path, RunRecord(settings=FitSettings(**SMALL), classes=("a", "b"), tools={}))
        with pytest.raises(DataError, match="not validated an epoch"):
            run.load_best()


class TestSteps:
    @pytest.fixture
    def model(self) -> VideoMoE:
        return build_model(FitSettings(**SMALL).model(2))

    @pytest.mark.parametrize(
        ("method", "number", "moved"), [("j-tlat", 0, "router."), ("j-tlat", 1, "experts."), ("at-m", 0, "")]
    )
    def test_a_step_moves_its_part_alone(self, tmp_path: Path, method: str, number: int, moved: str) -> None:
        fit = FitSettings(**{**SMALL, "method": method})
        run = Run.create(tmp_path, RunRecord(settings=fit, classes=("a", "b"), tools={}))
        trainer = Trainer(run, two_signals(16, 0), two_signals(8, 1), Silent())
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        # The first epoch starts at a learning rate of zero; take a batch from the middle of the warm-up.
        trainer._sweep(trainer.whole, trainer.method.steps[number], 1, number, 3)
        changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed
        assert all(name.startswith(moved) for name in changed)

    def test_weak_experts_are_the_top_two_where_a_guided_attack_leads(self) -> None:
        model = build_model(FitSettings(**{**SMALL, "experts": 4}).model(2)).eval()
        x, y = next(batches(two_signals(8, 0), 8, "cpu"))
        step, fit = METHODS["j-tlat"].steps[1], FitSettings(**SMALL, weak="both")
        (first, heavy), (second, light) = weak_experts(step, model, x, y, 8 / 255, fit, torch.zeros_like)
        attack = finder(step)
        assert attack is not None
        scores = model.router(attack(model, x, y, 8 / 255, 2, noise=torch.zeros_like(x), lam=fit.inner_lam))
        order = scores.argsort(1, descending=True)
        assert torch.equal(first, order[:, 0])
        assert torch.equal(second, order[:, 1])
        torch.testing.assert_close(heavy + light, torch.ones(8))
        assert bool((heavy >= light).all())

    def test_one_weak_expert_is_drawn_as_often_as_it_weighs(self) -> None:
        model = build_model(FitSettings(**{**SMALL, "experts": 4, "router_gain": 1.0}).model(2)).eval()
        with torch.no_grad():
            model.get_parameter("router.score.weight").mul_(100)  # weights that differ from a half
        x, y = next(batches(two_signals(8, 0), 8, "cpu"))
        step, fit = METHODS["j-tlat"].steps[1], FitSettings(**SMALL, weak="both")
        (first, heavy), (second, _) = weak_experts(step, model, x, y, 0, fit, torch.zeros_like)
        drawn, rounds = torch.zeros(8), 400
        torch.manual_seed(0)
        for _ in range(rounds):
            noise = lambda like: torch.empty_like(like).uniform_(-1, 1)  # noqa: E731
            ((one, weight),) = weak_experts(step, model, x, y, 0, fit.model_copy(update={"weak": "drawn"}), noise)
            assert torch.equal(weight, torch.ones(8))
            assert bool(((one == first) | (one == second)).all())
            drawn += (one == first) / rounds
        assert float((heavy - 0.5).abs().max()) > 0.1
        assert float((drawn - heavy).abs().max()) < 5 * 0.5 / rounds**0.5

    def test_the_loss_of_plain_training_is_cross_entropy_and_balance(self, model: VideoMoE) -> None:
        x, y = next(batches(two_signals(8, 0), 8, "cpu"))
        fit = FitSettings(**{**SMALL, "balance": 0.25})
        # In eval mode, where a second forward pass gives the same numbers.
        model.eval()
        found = loss_of(METHODS["plain"].steps[0], model, x, y, 8 / 255, fit, torch.zeros_like)
        outputs = model.outputs(x, "switch")
        expected = torch.nn.functional.cross_entropy(outputs.logits, y) + 0.25 * load_balance(outputs.router)
        torch.testing.assert_close(found, expected)

    def test_the_routers_lipschitz_weight_is_lam_times_its_own(self) -> None:
        model = build_model(FitSettings(**SMALL, router_gain=1.0).model(2))
        x, y = next(batches(two_signals(8, 0), 8, "cpu"))
        noise = lambda like: torch.full_like(like, 0.5)  # noqa: E731
        model.eval()

        def loss(part: int, **given: float) -> float:
            fit = FitSettings(**{**SMALL, "lam": 0.01, "inner_steps": 1, "router_lam": 1.0, **given})
            return loss_of(METHODS["j-tlat"].steps[part], model, x, y, 8 / 255, fit, noise).item()

        assert loss(0, router_lam=30.0) == pytest.approx(loss(0, lam=0.3), rel=1e-5)
        assert loss(0, router_lam=30.0) > loss(0) + 1e-4
        assert loss(2, router_lam=30.0) == loss(2)

    def test_unknown_method_is_named_with_the_known_ones(self) -> None:
        with pytest.raises(MethodError, match=r"'magic'.*at-m.*j-tlat"):
            find_method("magic")

    @pytest.mark.parametrize("method", sorted(METHODS))
    def test_every_method_trains_a_step_of_each_part(self, tmp_path: Path, method: str) -> None:
        reporter = Silent()
        run = train(tmp_path, reporter, method=method, epochs=1, batch=16, inner_steps=1, shared_start=0.0)
        (epoch,) = reporter.records
        assert list(epoch.loss) == [step.part for step in METHODS[method].steps]
        assert all(np.isfinite(loss) for loss in epoch.loss.values())
        assert run.load_best()(torch.zeros(1, 3, 4, 8, 8)).shape == (1, 2)

    def test_the_rows_of_the_paper_are_those_of_the_attacks(self) -> None:
        router, experts, moe = METHODS["j-tlat-printed"].steps
        for step, name in ((router, "tla-r"), (experts, "tla-e"), (moe, "tla-m")):
            model, (x, y) = build_model(FitSettings(**SMALL).model(2)), next(batches(two_signals(8, 0), 8, "cpu"))
            attack = inner_attack(step)
            assert attack is not None
            found = attack(model, x, y, steps=2, seed=5)
            assert torch.equal(found, ATTACKS[name].but(keep="last")(model, x, y, steps=2, seed=5))

    def test_the_mixture_is_attacked_and_trained_as_it_is_deployed(self) -> None:
        moe = METHODS["j-tlat"].steps[-1]
        attack = inner_attack(moe)
        assert attack is not None
        assert (attack.path, moe.path) == ("hard", "hard")
        model, (x, y) = build_model(FitSettings(**SMALL).model(2)).eval(), next(batches(two_signals(8, 0), 8, "cpu"))
        fit = FitSettings(**{**SMALL, "balance": 0.0, "lam": 0.0, "eps": 0.0})
        found = loss_of(moe, model, x, y, 0.0, fit, torch.zeros_like)
        torch.testing.assert_close(found, torch.nn.functional.cross_entropy(model(x), y))

    @pytest.mark.parametrize(
        ("method", "experts", "widths"), [("at-s", 1, {4}), ("at-d", 1, {8}), ("at-m", 2, {4}), ("oud-m", 2, {4})]
    )
    def test_a_method_for_one_network_has_a_mixture_of_one(self, method: str, experts: int, widths: set[int]) -> None:
        spec = FitSettings(**SMALL, method=method).model(2)
        assert len(spec.experts) == experts
        assert {expert.width for expert in spec.experts} == widths
        assert (spec.restore is None) == (method != "oud-m")

    def test_a_method_brings_its_own_defaults_and_the_user_has_the_last_word(self) -> None:
        assert FitSettings(**SMALL, method="aat-m").ramp == 0.7
        assert FitSettings(**SMALL, method="aat-m", ramp=0.1).ramp == 0.1
        assert FitSettings(**SMALL, method="j-tlat-printed").assign == "argmax"
        stored = FitSettings(**SMALL, method="aat-m", ramp=0.1).model_dump_json()
        assert FitSettings.model_validate_json(stored).ramp == 0.1

    def test_a_clip_that_is_too_hard_is_drawn_back_until_the_model_gets_it_right(self) -> None:
        class Bright(torch.nn.Module):
            """Class 1 from mean 0.5 on."""

            def forward(self, x: Tensor) -> Tensor:
                mean = x.flatten(1).mean(1, keepdim=True)
                return torch.cat([0.5 - mean, mean - 0.5], dim=1)

        model = VideoMoE(ConstantRouter(), [Bright()])
        x, y = torch.full((4, 3, 1, 1, 1), 0.4), torch.zeros(4, dtype=torch.long)
        x_adv = x + torch.tensor([0.05, 0.15, 0.3, 0.9]).view(4, 1, 1, 1, 1)
        kept = within_reach(model, x, x_adv, y)
        # Right as it is; at 0.5 of the way; at 0.25; nowhere.
        expected = torch.tensor([0.45, 0.4 + 0.5 * 0.15, 0.4 + 0.25 * 0.3, 0.4 + 0.25 * 0.9])
        torch.testing.assert_close(kept[:, 0, 0, 0, 0], expected)


class TestTerms:
    """Outer terms against their closed forms, on heads that are given."""

    @pytest.fixture
    def heads(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(4)
        return torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)

    @staticmethod
    def value(term: Any, clean: Tensor, attacked: Tensor) -> Tensor:
        class Known:
            def clean(self, head: object) -> Tensor:
                return clean

        return term(lambda out, ref: out)(attacked, None, Known(), None)

    def test_divergences_and_angle(self, heads: tuple[Tensor, Tensor]) -> None:
        clean, attacked = heads
        p, q = clean.softmax(1), attacked.softmax(1)
        middle = (p + q) / 2
        torch.testing.assert_close(self.value(terms.kl, *heads), (p * (p / q).log()).sum(1))
        expected = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)) / 2
        torch.testing.assert_close(self.value(terms.js, *heads), expected)
        angle = (clean * attacked).sum(1) / clean.norm(dim=1) / attacked.norm(dim=1)
        torch.testing.assert_close(self.value(terms.cos, *heads), 1 - angle)
        torch.testing.assert_close(self.value(terms.nr, *heads), (attacked**2).mean(1))

    @pytest.mark.parametrize("term", [terms.kl, terms.js, terms.cos])
    def test_nothing_moved_costs_nothing(self, term: Any, heads: tuple[Tensor, Tensor]) -> None:
        torch.testing.assert_close(self.value(term, heads[0], heads[0]), torch.zeros(5), atol=1e-6, rtol=0)

    def test_the_steepness_of_a_linear_head_is_that_of_its_cross_entropy(self) -> None:
        weight = torch.randn(12, 3, generator=torch.Generator().manual_seed(4))
        x = torch.rand(5, 3, 1, 2, 2).requires_grad_(True)
        y = torch.tensor([0, 1, 2, 0, 1])

        class Known:
            pass

        logits = x.flatten(1) @ weight
        known: Any = Known()
        known.y = y
        found = terms.gr(lambda out, ref: out)(logits, x, known, None)  # type: ignore[arg-type, return-value]
        by_hand = (logits.softmax(1) - torch.nn.functional.one_hot(y, 3)) @ weight.T
        torch.testing.assert_close(found, by_hand.square().sum(1))
        assert found.requires_grad


class TestBalance:
    def test_an_even_load_costs_one_and_a_collapsed_router_the_number_of_experts(self) -> None:
        even = torch.eye(4).repeat(3, 1) * 50
        collapsed = torch.tensor([[50.0, 0, 0, 0]]).repeat(12, 1)
        assert load_balance(even).item() == pytest.approx(1.0)
        assert load_balance(collapsed).item() == pytest.approx(4.0)

    def test_assignment_is_even_although_the_router_prefers_one_expert(self) -> None:
        router = torch.randn(400, 4) + torch.tensor([6.0, 0, 0, 0])
        assert (router.argmax(1) == 0).double().mean() > 0.95
        share = torch.bincount(balanced_assignment(router), minlength=4) / 400
        assert share.min() > 0.2

    @pytest.mark.parametrize("size", [0.001, 1, 100])
    def test_assignment_is_even_for_scores_of_any_size(self, size: float) -> None:
        # Two experts are told apart by ten times as much as the two others.
        spread = torch.tensor([0.3, -0.2, 3.0, -3.0])
        router = size * (torch.randn(400, 1) * spread + 0.3 * torch.randn(400, 4))
        share = torch.bincount(balanced_assignment(router), minlength=4) / 400
        assert share.min() > 0.2

    def test_assignment_of_scores_that_are_all_the_same_is_defined(self) -> None:
        assert balanced_assignment(torch.ones(6, 3)).shape == (6,)

    def test_assignment_keeps_a_choice_that_is_even_already(self) -> None:
        router = torch.eye(4).repeat(5, 1) * 3
        assert torch.equal(balanced_assignment(router), router.argmax(1))


class TestBatches:
    def test_each_clip_once_and_as_the_runtime_would_see_it(self) -> None:
        clips = two_signals(10, 0)
        x, y = (torch.cat(parts) for parts in zip(*batches(clips, 4, "cpu"), strict=True))
        assert torch.equal(x, torch.from_numpy(to_network(clips.frames)))
        assert torch.equal(y, torch.from_numpy(clips.labels))

    def test_shuffled_batches_are_full_and_repeat_with_the_seed(self) -> None:
        clips = two_signals(10, 0)
        one, same, other = (
            [b[0] for b in batches(clips, 4, "cpu", torch.Generator().manual_seed(s))] for s in (1, 1, 2)
        )
        assert [len(x) for x in one] == [4, 4]
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def test_a_shift_is_the_same_in_every_frame_and_within_bounds(self) -> None:
        x = torch.zeros(64, 1, 3, 9, 9)
        x[..., 4, 4] = 1
        moved = augment(x, 2, False, torch.Generator().manual_seed(0))
        where = moved[:, 0].flatten(2).argmax(2)
        assert bool((where == where[:, :1]).all())
        rows, columns = where[:, 0] // 9, where[:, 0] % 9
        assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4, 5, 6}

    def test_flip_mirrors_about_half_of_the_clips_left_to_right(self) -> None:
        x = torch.zeros(200, 1, 1, 2, 4)
        x[..., 0, 0] = 1
        flipped = augment(x, 0, True, torch.Generator().manual_seed(0))[:, 0, 0, 0, 3] == 1
        assert 0.35 < flipped.double().mean() < 0.65


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    assert learning_rate(0) == 0
    assert learning_rate(0.1) == pytest.approx(1)
    assert learning_rate(1) == pytest.approx(0)
    assert learning_rate(0.55) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("method_", "x"), ("eps", 2.0), ("device", "tpu")])
def test_a_setting_out_of_range_is_one_line_with_its_name(name: str, value: object) -> None:
    with pytest.raises(MethodError) as raised:
        settings_from({**SMALL, name: value})
    assert name.replace("_", "-") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_metrics_of_an_epoch_that_was_not_finished_are_forgotten(tmp_path: Path) -> None:
    run = train(tmp_path, epochs=1, method="plain")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2, "robust": 1.0}) + "\n")
    assert [epoch.epoch for epoch in run.metrics] == [1]
