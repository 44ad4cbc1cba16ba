"""The start of a run in which the experts of a kind learn as one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError
from hardroute.training.comparison.compute import equal_epochs, flops_per_clip, run_flops
from hardroute.training.loop.trainer import Trainer
from hardroute.training.run import EpochRecord, Run, RunRecord, ValidatedEpoch, best_of
from hardroute.training.settings import FitSettings, settings_from
from tests.support.training import SMALL, Silent, new_run, two_signals

THREE: dict[str, Any] = {**SMALL, "method": "j-tlat", "experts": 3, "expert": "tsm", "epochs": 2, "inner_steps": 1}


def trained(folder: Path, **settings: Any) -> Trainer:
    trainer = Trainer(new_run(folder, **{**THREE, **settings}), two_signals(16, 0), two_signals(8, 1), Silent())
    trainer.go()
    return trainer


def same(model: VideoMoE, one: int, other: int) -> bool:
    first, second = (model.experts[i].state_dict() for i in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_experts_of_a_kind_are_one_at_first_and_part_afterwards(tmp_path: Path) -> None:
    together = trained(tmp_path / "shared_start", shared_start=1.0)
    for model in (together.model, together.exported):
        assert same(model, 0, 1) and same(model, 0, 2)
    assert list(together.run.metrics[0].loss) == ["router", "tsm"]
    parted = trained(tmp_path / "parted", shared_start=0.5)
    assert [list(epoch.loss) for epoch in parted.run.metrics] == [["router", "tsm"], ["router", "experts", "moe"]]
    assert not same(parted.model, 0, 2)


def test_the_start_that_experts_of_several_kinds_take() -> None:
    one, several = FitSettings(**THREE), FitSettings(**{**THREE, "expert": "tsm, r3d18"})
    assert (one.start, one.assign) == ("one", "balanced")
    assert (several.start, several.assign) == ("mixture", "argmax")
    assert FitSettings(**{**THREE, "expert": "tsm,tsm"}).start == "one"
    assert FitSettings(**{**THREE, "start": "mixture"}).assign == "argmax"
    assert FitSettings(**{**THREE, "start": "mixture", "assign": "balanced"}).assign == "balanced"
    with pytest.raises(MethodError, match="several kinds cannot learn as one; take start mixture"):
        settings_from({**THREE, "expert": "tsm,r3d18", "start": "one"})


def test_experts_of_several_kinds_start_as_adversarial_training_of_the_mixture(tmp_path: Path) -> None:
    kinds = {"expert": "r3d18,tsm", "router_gain": 1.0, "ramp": 0.3}
    started = trained(tmp_path / "started", shared_start=1.0, **kinds)
    plainly = trained(tmp_path / "plainly", method="at-m", **kinds)
    assert [list(epoch.loss) for epoch in started.run.metrics] == [["moe"], ["moe"]]
    for name, tensor in plainly.model.state_dict().items():
        assert torch.equal(tensor, started.model.state_dict()[name]), name
    fit = FitSettings(**{**THREE, **kinds, "epochs": 1, "shared_start": 0.0})
    assert flops_per_clip(fit, 2, shared=True) == flops_per_clip(fit.model_copy(update={"method": "at-m"}), 2)
    parted = trained(tmp_path / "parted", shared_start=0.5, **kinds)
    assert list(parted.run.metrics[1].loss) == ["router", "experts", "moe"]
    assert not same(parted.model, 0, 2)


def test_the_best_epoch_is_one_whose_experts_have_parted(tmp_path: Path) -> None:
    run = trained(tmp_path, shared_start=0.75, epochs=4).run
    assert [epoch.copies for epoch in run.metrics] == [True, True, True, False]
    raised = [epoch.model_copy(update={"robust": float(epoch.copies)}) for epoch in run.metrics]
    assert best_of(raised).epoch == 4
    assert best_of(raised[:3]).epoch == 3
    assert not same(run.load_best(), 0, 1)


def test_a_follower_goes_on_with_its_leaders_optimiser_state(tmp_path: Path) -> None:
    trainer = trained(tmp_path, shared_start=1.0)
    leader, follower = (dict(trainer.model.experts[i].named_parameters()) for i in (0, 2))
    for name, parameter in follower.items():
        mine, theirs = trainer.optimizer.state[parameter], trainer.optimizer.state[leader[name]]
        assert mine["exp_avg"] is not theirs["exp_avg"]
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])


def test_the_leader_sees_every_clip_and_a_router_without_a_step_of_its_own_waits(tmp_path: Path) -> None:
    fit = FitSettings(**{**THREE, "method": "plain", "shared_start": 1.0, "epochs": 1})
    run = Run.create(tmp_path, RunRecord(settings=fit, classes=("a", "b"), tools={}))
    trainer = Trainer(run, two_signals(16, 0), two_signals(8, 1), Silent())
    router = {name: tensor.clone() for name, tensor in trainer.model.router.state_dict().items()}
    trainer.go()
    assert run.metrics[0].passes["expert_forward"] == 16
    assert all(torch.equal(tensor, router[name]) for name, tensor in trainer.model.router.state_dict().items())


def test_kept_norms_are_those_that_the_start_left(tmp_path: Path) -> None:
    def norms(part: Any) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in part.named_buffers() if "running" in name}

    def moved(before: dict[str, torch.Tensor], part: Any) -> bool:
        return any(not torch.equal(before[name], tensor) for name, tensor in norms(part).items())

    for norm in ("batch", "kept"):
        fit = FitSettings(**{**THREE, "shared_start": 0.5, "norm": norm, "epochs": 4})
        run = Run.create(tmp_path / norm, RunRecord(settings=fit, classes=("a", "b"), tools={}))
        seen = []

        class Looks(Silent):
            def epoch(self, record: EpochRecord) -> None:
                seen.append((norms(trainer.model.experts), norms(trainer.model.router)))  # noqa: B023

        trainer = Trainer(run, two_signals(16, 0), two_signals(8, 1), Looks())
        trainer.go()
        assert moved(seen[0][0], trainer.model.experts), "the start gathers statistics"
        assert moved(seen[1][0], trainer.model.experts) == (norm == "batch")
        assert moved(seen[1][1], trainer.model.router), "the router sees whole batches"


def test_a_run_cut_between_together_and_apart_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", shared_start=0.5)
    fit = FitSettings(**{**THREE, "shared_start": 0.5})
    cut = Run.create(tmp_path / "cut", RunRecord(settings=fit, classes=("a", "b"), tools={}))

    class Killed(Exception):
        pass

    class Stops(Silent):
        def epoch(self, record: EpochRecord) -> None:
            raise Killed

    with contextlib.suppress(Killed):
        Trainer(cut, two_signals(16, 0), two_signals(8, 1), Stops()).go()
    assert cut.finished_epochs == 1
    again = Trainer(Run.open(cut.root), two_signals(16, 0), two_signals(8, 1), Silent())
    again.go()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_equal_compute_counts_both_halves_of_a_run() -> None:
    reference = FitSettings(**{**SMALL, "method": "at-m", "epochs": 40})
    joint = FitSettings(**{**SMALL, "method": "j-tlat", "shared_start": 0.5, "epochs": 6})
    alike = joint.model_copy(update={"epochs": 1, "shared_start": 0.0})
    one, apart = (flops_per_clip(alike, 2, shared) for shared in (True, False))
    assert one < apart
    assert run_flops(joint, 2) == 3 * one + 3 * apart
    chosen = joint.model_copy(update={"epochs": equal_epochs(joint, reference, 2)})
    assert abs(run_flops(chosen, 2) - run_flops(reference, 2)) <= apart


def test_validation_every_other_epoch_and_after_the_last(tmp_path: Path) -> None:
    trainer = trained(tmp_path, epochs=3, validate_every=2, method="at-m")
    assert [isinstance(epoch, ValidatedEpoch) for epoch in trainer.run.metrics] == [False, True, True]
    assert trainer.run.best.epoch in (2, 3)
    assert (tmp_path / "dynamics.png").exists()
