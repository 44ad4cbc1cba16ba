"""Training compute, counted; and how a run went, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import nn

from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.cost import counted
from hardroute.models import build_model
from hardroute.training.comparison.compute import Operations, equal_epochs, flops_per_clip, spent_flops
from hardroute.training.loop.tracking import EventFile, draw, scalars
from hardroute.training.run import EpochRecord, Run, RunRecord, ValidatedEpoch
from hardroute.training.settings import FitSettings

SMALL: dict[str, Any] = {"data": "none", "width": 4, "router_width": 2, "blocks": (1, 0, 0, 0), "frames": 4, "size": 16}


def cost(**settings: Any) -> float:
    return flops_per_clip(FitSettings(**{**SMALL, **settings}), classes=3)


def test_a_matrix_product_and_its_backward_pass_cost_what_they_cost() -> None:
    layer, x = nn.Linear(7, 5, bias=False), torch.rand(3, 7)
    with Operations() as forward:
        out = layer(x).sum()
    with Operations() as backward:
        out.backward()
    assert forward.total == 2 * 3 * 7 * 5
    assert backward.total == 2 * 3 * 7 * 5, "the weights' gradient alone: x asks for none"


def test_each_inner_step_adds_a_forward_pass_and_the_clip_half_of_a_backward_one() -> None:
    one, two, five = (cost(method="at-s", inner_steps=steps) for steps in (1, 2, 5))
    assert five - two == pytest.approx(3 * (two - one))
    # Forward and gradient with respect to the clip: 2 of the 3 that training takes, more where the first layer, whose
    # input training does not ask about, is much of the network.
    assert 2 / 3 < (two - one) / cost(method="plain", experts=1) < 1


@pytest.mark.parametrize("method", ["plain", "at-m"])
def test_experts_of_several_kinds_cost_their_mean(method: str) -> None:
    first, second, both = (
        cost(method=method, expert=kinds, experts=2) for kinds in ("r3d18", "slowfast", "r3d18,slowfast")
    )
    assert abs(first - second) > 0.1 * first
    assert both == pytest.approx((first + second) / 2, rel=1e-3)


def test_what_a_run_cost_goes_by_the_loads_that_its_experts_had(tmp_path: Path) -> None:
    kinds = {"expert": "r3d18,slowfast", "experts": 2, "method": "at-m"}
    first, second = (cost(**{**kinds, "expert": kind}) for kind in ("r3d18", "slowfast"))
    run = Run.create(tmp_path, RunRecord(settings=FitSettings(**SMALL, **kinds), classes=("a", "b", "c"), tools={}))
    model = build_model(run.record.spec)
    for epoch, load in enumerate(((0.75, 0.25), ()), start=1):
        run.save_epoch(model, {"none": torch.zeros(1)}, EpochRecord(epoch=epoch, loss={}, trained_load=load))
    assert spent_flops(run) == pytest.approx(0.75 * first + 0.25 * second + (first + second) / 2, rel=1e-3)


@pytest.mark.parametrize(("method", "same_as"), [("fast-at", 1), ("trades", None), ("awp", None)])
def test_methods_cost_what_they_do(method: str, same_as: int | None) -> None:
    plain, adversarial = cost(method="plain"), cost(method="at-m", inner_steps=1)
    if same_as:
        assert cost(method=method, inner_steps=5) == cost(method="at-m", inner_steps=same_as)
    else:
        # One more pass forward and back: of the clean clips, or at the perturbed weights.
        assert 0.6 * plain < cost(method=method, inner_steps=1) - adversarial < 1.5 * plain


def test_equal_compute_gives_a_dearer_method_fewer_epochs() -> None:
    reference = FitSettings(**SMALL, method="at-m", epochs=60)
    assert equal_epochs(reference, reference, 3) == 60
    joint = FitSettings(**SMALL, method="j-tlat", epochs=1, shared_start=0.0)
    epochs = equal_epochs(joint, reference, 3)
    assert epochs * cost(method="j-tlat", shared_start=0.0) == pytest.approx(60 * cost(method="at-m"), rel=0.5 / epochs)


RECORD = ValidatedEpoch(
    epoch=2,
    loss={"moe": 1.5},
    clean=0.5,
    robust=0.25,
    under={"fgsm": 0.5, "j-tlga": 0.25},
    load=(0.75, 0.25),
    load_entropy=0.8,
    attacked_load_entropy=0.5,
    route_flips=0.0,
    clips=8,
)

FIRST = RECORD.model_copy(update={"epoch": 1})


def test_nested_numbers_become_names() -> None:
    assert scalars(RECORD) == {
        "epoch": 2, "loss/moe": 1.5, "clean": 0.5, "robust": 0.25, "under/fgsm": 0.5, "under/j-tlga": 0.25,
        "load/0": 0.75, "load/1": 0.25,
        "load_entropy": 0.8, "attacked_load_entropy": 0.5, "route_flips": 0.0, "clips": 8,
    }  # fmt: skip


def test_tensorboard_finds_every_number(tmp_path: Path) -> None:
    EventFile(tmp_path, [FIRST]).add(RECORD)
    assert numbers(tmp_path) == {
        **{(1, name): pytest.approx(value) for name, value in scalars(FIRST).items()},
        **{(2, name): pytest.approx(value) for name, value in scalars(RECORD).items()},
    }


def test_a_run_that_goes_on_has_one_event_file_and_each_epoch_once(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    events.add(FIRST)
    events.add(RECORD)
    with events.path.open("ab") as file:
        file.write(b"half a record")
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"of an older version")
    EventFile(tmp_path, [FIRST]).add(RECORD)
    steps = [step for step, name in numbers(tmp_path) if name == "clean"]
    assert steps == [1, 2]


def numbers(folder: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value, of all records of the one event file in the folder."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), dict[tuple[int, str], float]()
    while data:  # records: length (8 bytes), its checksum (4), an event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        assert len(data) >= 16 + length, "half a record"
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            assert (event.step, value.tag) not in found
            found[event.step, value.tag] = value.simple_value
        data = data[16 + length :]
    return found


def test_the_picture_shows_something(tmp_path: Path) -> None:
    draw(tmp_path / "dynamics.png", [FIRST, RECORD])
    picture = cv2.imread(str(tmp_path / "dynamics.png"))
    assert picture is not None and picture.shape[0] > 300 and picture.std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["dynamics.png"]


def test_an_attack_on_the_router_runs_no_expert_where_nobody_judges_it() -> None:
    model = build_model(FitSettings(**SMALL).model(3))
    x, y = torch.rand(4, 3, 4, 16, 16), torch.arange(4) % 3
    for name, runs_experts in (("tla-r", False), ("tla-m", True)):
        with counted(model) as passes:
            ATTACKS[name].but(keep="last")(model, x, y, steps=2)
        assert bool(passes.total[2]) == runs_experts, name
