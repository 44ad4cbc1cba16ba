"""No slope is steeper than the bound: not between two clips, and not that of any clip's Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hardroute.audit.proof import ProofError, jumps, lipschitz, lipschitz_bound
from hardroute.models import EXPERTS, VideoMoE, build_expert
from hardroute.models.router import ConstantRouter, ConvRouter
from tests.support.audit_models import Linear, eight_bit_clips, mixture, single

CLIP = torch.zeros(3, 4, 8, 8)


def steepest(network: nn.Module, clips: int = 4, shape: torch.Size = CLIP.shape) -> float:
    """The largest singular value of the Jacobians at some clips, and slope between pairs of them."""
    x = torch.rand(clips, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = network.double().eval()
    found = []
    for n in range(clips):
        jacobian = torch.autograd.functional.jacobian(network, x[n : n + 1])
        assert isinstance(jacobian, Tensor)
        found.append(float(torch.linalg.matrix_norm(jacobian.flatten(2).flatten(0, 1).flatten(1), 2)))
        moved = (network(x[n : n + 1]) - network(x[n - 1 : n])).norm() / (x[n] - x[n - 1]).norm()
        found.append(float(moved.detach()))
    network.float()
    return max(found)


def test_of_a_linear_network_it_is_the_norm() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 20), nn.BatchNorm1d(20), nn.Linear(20, 5)).eval()
    assert lipschitz_bound(network, CLIP) == pytest.approx(steepest(network), rel=1e-6)
    assert lipschitz_bound(ConstantRouter(), CLIP) == 0


@pytest.mark.parametrize("outright", [True, False])
def test_nothing_is_steeper(monkeypatch: pytest.MonkeyPatch, outright: bool) -> None:
    if not outright:
        monkeypatch.setattr(lipschitz, "LARGEST_SIDE", 0)
    torch.manual_seed(0)
    for network in (
        ConvRouter(3, width=2, gain=5.0),
        nn.Sequential(nn.Conv3d(3, 5, 3, 2, 1), nn.LeakyReLU(2.0), nn.Flatten(), nn.Linear(160, 4)),
        nn.Sequential(nn.Conv3d(3, 2, 3), nn.MaxPool3d((1, 3, 3), 1), nn.Flatten(), nn.Linear(64, 4)),
        build_expert("r3d18", 4, 4, (1, 0, 0, 0)),
    ):
        bound = lipschitz_bound(network, CLIP)
        assert steepest(network) <= bound < torch.inf


def test_the_norm_of_a_large_layer_is_bounded_from_above(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for layer in (nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(3, 8, (3, 5, 5), (1, 4, 4), (1, 2, 2), bias=False)):
        network = nn.Sequential(layer, nn.Flatten())
        exact = lipschitz_bound(network, CLIP)
        with monkeypatch.context() as patch:
            patch.setattr(lipschitz, "LARGEST_SIDE", 0)
            bound = lipschitz_bound(network, CLIP)
        matrix = torch.autograd.functional.jacobian(network, CLIP.unsqueeze(0))
        assert isinstance(matrix, Tensor)
        matrix = matrix.view(-1, CLIP.numel())
        rows, columns = matrix.abs().sum(1).amax(), matrix.abs().sum(0).amax()
        if exact < bound:  # the first is too large to be computed outright either way
            assert exact == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-4)
        assert float(torch.linalg.matrix_norm(matrix, 2)) <= bound <= float((rows * columns).sqrt()) * 1.001


def test_a_pixel_counts_in_every_window_of_a_maximum() -> None:
    pool = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), nn.Flatten())
    spike = torch.zeros(1, *CLIP.shape)
    spike[0, 0, 2, 4, 4] = 1
    seen = float((pool(spike) - pool(0 * spike)).norm())
    assert seen == pytest.approx(27**0.5) and lipschitz_bound(pool, CLIP) == pytest.approx(27**0.5)
    assert lipschitz_bound(nn.Sequential(nn.MaxPool3d(2), nn.Flatten()), CLIP) == pytest.approx(1)


@pytest.mark.parametrize("kind", EXPERTS)
def test_every_kind_of_expert_has_a_bound(kind: str) -> None:
    torch.manual_seed(0)
    expert = build_expert(kind, 3, 2, (1, 0, 0, 0)).eval()
    clip = torch.zeros(3, 8, 16, 16)
    assert 0 < steepest(expert, clips=2, shape=clip.shape) <= lipschitz_bound(expert, clip) < torch.inf


def test_a_layer_without_a_bound_is_named() -> None:
    with pytest.raises(ProofError, match=r"expert 2 layer '1' \(GELU\)"):
        lipschitz_bound(nn.Sequential(nn.Flatten(), nn.GELU(), nn.Linear(768, 2)), CLIP, "expert 2")


def test_the_jump_is_the_largest_difference_of_two_experts() -> None:
    model, x = mixture(experts=3), eight_bit_clips(40)
    every = model.every_expert(x).detach().double()
    expected = [max(float((e[i] - e[j]).norm()) for i in range(3) for j in range(i)) for e in every]
    assert torch.allclose(jumps(model, x, batch_size=7), torch.tensor(expected).double())
    assert jumps(single(), x).tolist() == [0.0] * 40
    same = Linear(4)
    assert float(jumps(VideoMoE(Linear(2), [same, same]), x).max()) == 0
