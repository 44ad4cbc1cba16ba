"""Half precision in a run: what fails the proof computes in fp32, and what is not finite moves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hardroute.models import LayerError, VideoMoE
from hardroute.training import precision
from hardroute.training.loop import Trainer
from hardroute.training.loop.monitor import PATIENCE, TrainingError
from hardroute.training.precision import Precision
from hardroute.training.run import Run
from tests.support.training import Silent, new_run, two_signals


def trainer(root: Path, reporter: Silent | None = None, **settings: Any) -> Trainer:
    return Trainer(new_run(root, **settings), two_signals(48, 0), two_signals(24, 1), reporter or Silent())


def test_a_layer_that_fails_is_named_and_computes_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def one_fails(model: VideoMoE, batches: Any, dtype: torch.dtype) -> list[LayerError]:
        asked.extend([(tuple(x.shape), dtype) for x in batches])
        return [LayerError("experts.1.layer1.0.conv1.0", {"weight gradient": 1.5}), LayerError("router", {"output": 0})]

    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    monkeypatch.setattr(precision, "prove_gradients", one_fails)
    reporter = Silent()
    found = trainer(tmp_path, reporter, precision="bf16", shards=2)
    # A batch of 8 in two shards, and what each of two experts may get of a shard.
    assert asked == [((2, 3, 4, 8, 8), torch.bfloat16), ((4, 3, 4, 8, 8), torch.bfloat16)]
    assert len(reporter.warnings) == 1 and "experts.1.layer1.0.conv1.0" in reporter.warnings[0]
    clip = torch.rand(2, 3, 4, 8, 8)
    for model in (found.model, found.exported, found.whole.folded.twin):
        kinds = {}

        def see(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            kinds[layer] = output.dtype  # noqa: B023

        layers = [model.get_submodule(f"experts.{j}.layer1.0.conv1.0") for j in (0, 1)]
        for layer in layers:
            layer.register_forward_hook(see)
        with torch.autocast("cpu", torch.bfloat16):
            model.every_expert(clip)
        assert [kinds[layer] for layer in layers] == [torch.bfloat16, torch.float32]


def test_fp32_needs_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "prove_gradients", None)
    reporter = Silent()
    trainer(tmp_path, reporter)
    assert not reporter.warnings


class Exploding(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradients[0], torch.inf)


def explode(layer: nn.Module, at: set[int]) -> None:
    """From now on the layer's gradients are infinite in the training passes of those numbers, its outputs right."""
    passes = iter(range(10**6))

    def see(module: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
        if module.training and torch.is_grad_enabled() and next(passes) in at:
            return Exploding.apply(output)
        return None

    layer.register_forward_hook(see)


def test_gradients_that_are_not_finite_never_reach_the_weights(tmp_path: Path) -> None:
    reporter = Silent()
    found = trainer(tmp_path, reporter, method="plain", epochs=2)
    explode(found.model.router, {1, 3})
    found.go()
    assert [record.skipped for record in reporter.records] == [2, 0]
    assert all(torch.isfinite(value).all() for value in found.model.state_dict().values())
    assert all(torch.isfinite(value).all() for value in found.exported.state_dict().values())
    assert sum("epoch 1: a loss or a gradient is not finite" in text for text in reporter.warnings) == 1
    assert not any("epoch 2: a loss" in text for text in reporter.warnings)


def test_a_skipped_batch_leaves_everything_as_it_was(tmp_path: Path) -> None:
    found = trainer(tmp_path, method="plain", epochs=1)
    explode(found.model.router, set(range(100)))
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    found._sweep(found.whole, found.method.steps[0], 0, 0, 1)
    assert found.monitor.skipped == 6
    assert all(torch.equal(value, before[name]) for name, value in found.model.state_dict().items())


def test_a_run_that_keeps_failing_stops_and_keeps_its_last_epoch(tmp_path: Path) -> None:
    found = trainer(tmp_path, method="plain", epochs=9)
    explode(found.model.router, set(range(6, 200)))
    with pytest.raises(TrainingError, match=f"epoch 5: the last {PATIENCE} batches"):
        found.go()
    run = Run.open(tmp_path)
    # Epochs 2 to 4, of six batches each, changed nothing.
    assert run.finished_epochs == 4
    assert [epoch.skipped for epoch in run.metrics] == [0, 6, 6, 6]
    assert all(torch.isfinite(value).all() for value in run.load_best().state_dict().values())


def test_fp16_goes_on_with_the_scale_of_its_gradients() -> None:
    one, other = Precision("fp32", "cpu"), Precision("fp32", "cpu")
    assert one.state() == {}
    other.restore({})
    for each in (one, other):
        each._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    weight = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    before = weight.weight.item()
    for factor, moves in ((torch.inf, False), (1.0, True)):
        optimizer.zero_grad()
        one.scaled(factor * weight(torch.ones(1, 1)).sum()).backward()
        assert one.step(optimizer, weight) == moves
        assert (weight.weight.item() != before) == moves
    # The weight moved by a gradient of one: the scale was taken off again.
    assert weight.weight.item() == pytest.approx(before - 1)
    assert one._scaler.get_scale() == 2.0**19
    other.restore(one.state())
    assert other._scaler.state_dict() == one._scaler.state_dict()
    with pytest.raises(KeyError):
        other.restore({})
