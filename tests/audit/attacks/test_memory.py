"""What an attack holds in memory: counted by storages, so that the same figure comes out every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hardroute.audit.attacks import ATTACKS
from hardroute.models import VideoMoE, build_model
from hardroute.models.build import ExpertSpec, ModelSpec, RouterSpec
from tests.measure.bench.attacking import minimal
from tests.measure.bench.memory import peak_bytes
from tests.support.audit_models import answers

EPS = 8 / 255


def test_the_count_is_that_of_the_tensors_alive_at_once() -> None:
    older = torch.ones(1000)

    def chain() -> None:
        x = older * 2
        for _ in range(5):
            x = x.view(10, 100).add_(1) * older.view(10, 100)  # the old x lives until the new one has its name

    assert peak_bytes(chain) == 2 * older.nbytes
    weight = torch.ones(1000, requires_grad=True)
    # For its backward pass, cos keeps its input; without one, only an operation's input and output live at once.
    assert peak_bytes(lambda: weight.sin().cos().exp()) == 3 * weight.nbytes
    with torch.no_grad():
        assert peak_bytes(lambda: weight.sin().cos().exp()) == 2 * weight.nbytes


@pytest.fixture(scope="module")
def routed() -> tuple[VideoMoE, Tensor, Tensor]:
    torch.manual_seed(0)
    spec = ModelSpec(classes=5, router=RouterSpec(width=2), experts=(ExpertSpec(width=2, blocks=(1, 1, 0, 0)),) * 4)
    model, x = build_model(spec).eval(), torch.rand(12, 3, 4, 16, 16)
    return model, x, answers(model, x)


@pytest.mark.parametrize("name", ["pgd-hard", "pgd-margin"])
def test_an_attack_holds_one_copy_of_the_batch_more_than_the_shortest_loop(
    routed: tuple[VideoMoE, Tensor, Tensor], name: str
) -> None:
    model, x, y = routed
    plain = peak_bytes(lambda: minimal(model, x, y, EPS, EPS / 4, 4, random_start=True))
    ours = peak_bytes(lambda: ATTACKS[name](model, x, y, EPS, steps=4))
    small = 64 * 1024  # labels, values, and the rows that fill up the last layer
    assert plain > 3 * x.nbytes
    assert ours <= plain + x.nbytes + small < plain + 1.5 * x.nbytes
