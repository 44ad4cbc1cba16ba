"""A proven lead is a lower bound: exact where an exact answer exists, and below whatever any attack reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.nn import functional as F

from hardroute.audit.proof import ProofError, RouteProver, excluded, prove_routes
from hardroute.models import VideoMoE
from hardroute.models.restoration import OverUnder, Restored
from hardroute.models.router import ConstantRouter, ConvRouter
from hardroute.runtime.errors import HardrouteError, MethodError
from tests.support.audit_models import Linear, eight_bit_clips, mixture, single

EPS = 8 / 255
SMALL = (3, 4, 8, 8)


def routed(router: nn.Module, experts: int = 3) -> VideoMoE:
    return VideoMoE(router, [nn.Identity() for _ in range(experts)]).eval()


def drawn(n: int, shape: tuple[int, ...] = SMALL, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def lead(model: VideoMoE, x: Tensor, route: Tensor) -> Tensor:
    """(N,) float64: the route's score ahead of the best other."""
    scores = model.router(x)
    own = scores.gather(1, route.unsqueeze(1)).squeeze(1)
    return (own - scores.scatter(1, route.unsqueeze(1), -torch.inf).amax(1)).double()


def lowest_found(model: VideoMoE, x: Tensor, eps: float, starts: int = 6, steps: int = 25) -> Tensor:
    """(N,) the smallest lead that signed gradient descent finds: an upper bound of the true one."""
    with torch.no_grad():
        route = model.router(x).argmax(1)
        best = lead(model, x, route)
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    generator = torch.Generator().manual_seed(1)
    for start in range(starts):
        z = low + (high - low) * torch.rand(x.shape, generator=generator).round() if start else x.clone()
        for step in range(steps):
            z.requires_grad_(True)
            found = lead(model, z, route)
            (gradient,) = torch.autograd.grad(found.sum(), z)
            best = torch.minimum(best, found.detach())
            z = (z.detach() - 2 * eps * 0.85**step * gradient.sign()).clamp(low, high)
        with torch.no_grad():
            best = torch.minimum(best, lead(model, z, route))
    return best


def of_layers(*layers: nn.Module) -> nn.Sequential:
    """Layers with batch norms that have seen something, and no weights at their initial 0 or 1."""
    network = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(3)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            assert norm.running_mean is not None and norm.running_var is not None
            with torch.no_grad():
                norm.running_mean.normal_(0, 0.3, generator=generator)
                norm.running_var.uniform_(0.3, 2, generator=generator)
                if norm.affine:
                    norm.weight.normal_(0, 1, generator=generator)
                    norm.bias.normal_(0, 0.3, generator=generator)
    return network


class Frames(nn.Module):
    """A 2D router over the mean frame, written with functions: no layer of it is a module of torch's."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3, generator=generator) / 3)
        self.rows = nn.Parameter(torch.randn(3, 12, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        frames = 1 - 2 * (x.mean(2) - 0.5) / 0.25
        found = F.conv2d(F.pad(frames, (1, 1, 1, 1), value=0.5), self.weight).relu()
        both = torch.cat([found, -found[:, :, :, :]], dim=1).flip(3)
        return both.amax((2, 3)) @ self.rows.T + found.mean((1, 2, 3)).unsqueeze(1)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 3, 3, padding=1), nn.Conv3d(3, 3, 1)
        self.score = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.relu(self.first(x))
        return 5 * self.score(torch.relu(x + self.second(inside)).mean(dim=(2, 3, 4)))


def routers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "ours": of_layers(ConvRouter(3, width=2, gain=20.0)),
        "3d": of_layers(
            nn.Conv3d(3, 4, 3, stride=2, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.AvgPool3d(2),
            nn.Flatten(),
            nn.Linear(16, 5),
            nn.ReLU(),
            nn.Linear(5, 3),
        ),
        "max pool": of_layers(
            nn.Conv3d(3, 4, 3, groups=1, dilation=(1, 2, 2)),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Flatten(1),
            nn.Linear(32, 3),
        ),
        "1d": of_layers(
            nn.Flatten(2),
            nn.Conv1d(3, 4, 5, stride=3, padding_mode="zeros"),
            nn.BatchNorm1d(4),
            nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool1d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8, 3),
        ),
        "2d": of_layers(
            nn.Flatten(1, 2),
            nn.Conv2d(12, 4, 3, padding="same"),
            nn.BatchNorm2d(4, affine=False),
            nn.ReLU6(),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
            nn.Sigmoid(),
        ),
        "functions": Frames(),
        "residual": Residual().eval(),
        "restored": Restored(OverUnder(2), of_layers(ConvRouter(3, width=2, gain=20.0))).eval(),
    }


@pytest.mark.parametrize("name", routers())
@pytest.mark.parametrize("eps", [0.5 / 255, 4 / 255, 32 / 255])
def test_no_attack_goes_below_what_is_proven(name: str, eps: float) -> None:
    model, x = routed(routers()[name]), drawn(8)
    for linear in (False, True):
        bound = prove_routes(model, x, eps, linear=linear)
        assert bool(bound.isfinite().all()) and bound.dtype == torch.float64
        assert bool((bound <= lowest_found(model, x, eps)).all())


@pytest.mark.parametrize("name", routers())
def test_without_a_budget_the_bound_is_the_lead(name: str) -> None:
    model, x = routed(routers()[name]), drawn(8)
    with torch.no_grad():
        scores = model.router(x)
        exact = lead(model, x, scores.argmax(1))
    size = float(scores.abs().max())
    for linear in (False, True):
        assert torch.allclose(prove_routes(model, x, 0.0, linear=linear), exact, rtol=0, atol=2e-5 * size)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    eps=st.sampled_from([0.25 / 255, 1 / 255, 4 / 255, 16 / 255, 1.0]),
    channels=st.integers(1, 4),
    stride=st.integers(1, 3),
    dark=st.booleans(),
)
def test_random_routers_are_bounded_from_below(seed: int, eps: float, channels: int, stride: int, dark: bool) -> None:
    torch.manual_seed(seed)
    model = routed(
        of_layers(
            nn.Conv3d(3, channels, 3, stride, 1),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            nn.Conv3d(channels, 3, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(3, 4),
        ),
        experts=4,
    )
    x = drawn(3, (3, 3, 6, 6), seed % 997) * (0.02 if dark else 1.0)
    proof = RouteProver(model, x[0])
    tight, loose = proof(x, eps), proof(x, eps, linear=False)
    assert bool((tight.lead <= lowest_found(model, x, eps, starts=3, steps=12)).all())
    assert bool((tight.leads >= loose.leads).all())
    # What is proven of a box holds for every box inside it.
    assert bool((proof(x, eps / 2).proven | ~loose.proven).all())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.2, 1.0])
def test_for_a_linear_router_the_bound_is_exact(seed: int, eps: float) -> None:
    torch.manual_seed(seed)
    model, x = mixture(experts=4), drawn(6, (3, 4, 6, 6), seed)
    assert isinstance(model.router, Linear)
    rows, bias = model.router.layer.weight.detach().double(), model.router.layer.bias.detach().double()
    route = model.router(x).argmax(1)
    low, high = ((x.double() + side * eps).clamp(0, 1).flatten(1) for side in (-1, 1))
    expected = []
    for n in range(len(x)):
        leads = []
        for j in set(range(4)) - {int(route[n])}:
            row = rows[route[n]] - rows[j]
            leads.append(float(row.clamp(min=0) @ low[n] + row.clamp(max=0) @ high[n] + bias[route[n]] - bias[j]))
        expected.append(min(leads))
    for linear in (False, True):
        bound = prove_routes(model, x, eps, tolerance=1e-5, linear=linear)
        # Below by what is set aside for rounding, and no more.
        assert torch.allclose(bound, torch.tensor(expected).double() - 2e-5, atol=2e-6)


def test_for_linear_mixtures_no_bound_is_above_the_linear_program() -> None:
    torch.manual_seed(1)
    model, x = mixture(experts=3), drawn(10, (3, 4, 6, 6))
    assert isinstance(model.router, Linear)
    rows, bias = model.router.layer.weight.detach().double(), model.router.layer.bias.detach().double()
    bound, out = prove_routes(model, x, EPS), excluded(model, x, EPS)
    route = model.router(x).argmax(1).tolist()
    for n, clip in enumerate(x.double().flatten(1)):
        box = torch.stack([(clip - EPS).clamp(min=0), (clip + EPS).clamp(max=1)], dim=1).numpy()
        for j in set(range(3)) - {route[n]}:
            row = (rows[route[n]] - rows[j]).numpy()
            exact = linprog(row, bounds=box).fun + float(bias[route[n]] - bias[j])
            assert bool(out[n, j]) == (exact > 1e-4) or abs(exact) < 1e-4
            assert float(bound[n]) <= exact
    assert not bool(out[range(10), route].any())


def test_excluded_experts_are_never_reached() -> None:
    torch.manual_seed(1)
    model = routed(
        of_layers(nn.AvgPool3d((4, 8, 8)), nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)), experts=4
    )
    # Clips of every brightness and contrast, so that scores differ by more than noise.
    x = (drawn(24, (3, 4, 16, 16)) * drawn(24, (1, 1, 1, 1), 1) + drawn(24, (3, 1, 1, 1), 2)) / 2
    last = model.router.get_submodule("4")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.sub_(model.router(x).mean(0))
    assert len(model.router(x).argmax(1).unique()) > 1
    eps = 6 / 255
    out = excluded(model, x, eps)
    assert 0.1 < out.float().mean() < 0.7
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for j in range(4):  # climb each expert's score above the others
        z = x.clone()
        for step in range(20):
            z.requires_grad_(True)
            scores = model.router(z)
            assert not bool((scores.argmax(1) == j)[out[:, j]].any())
            ahead = scores[:, j] - scores.index_fill(1, torch.tensor([j]), -torch.inf).amax(1)
            (gradient,) = torch.autograd.grad(ahead.sum(), z)
            z = (z.detach() + 2 * eps * 0.8**step * gradient.sign()).clamp(low, high)


def test_clips_are_proven_one_by_one() -> None:
    model, x = routed(routers()["3d"]), drawn(9)
    whole = prove_routes(model, x, EPS)
    assert torch.allclose(torch.cat([prove_routes(model, x[n : n + 1], EPS) for n in range(9)]), whole, atol=1e-9)


def test_a_router_that_looks_at_the_whole_batch_is_bounded_as_for_one_clip() -> None:
    class Batch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.mean(0, keepdim=True)).mean((2, 3, 4)) + x.mean((2, 3, 4))

    # Its scores of clips together are not those that are bounded, and that is told.
    with pytest.raises(ProofError, match="scores differ"):
        prove_routes(routed(Batch()), drawn(4), EPS)


def test_the_box_ends_at_black_and_white() -> None:
    """A router that compares brightness: on a black clip the box reaches up only."""

    class Brightness(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((1, 2, 3, 4))
            return torch.stack([mean, 0.1 - mean], dim=1)

    x = torch.zeros(2, *SMALL)
    x[1] = 1.0
    bound = prove_routes(routed(Brightness(), 2), x, 0.03, tolerance=1e-6)
    assert torch.allclose(bound, torch.tensor([0.1 - 0.06, 1.9 - 0.06]).double(), atol=3e-6)


def test_the_tolerance_is_set_aside_twice() -> None:
    model, x = routed(routers()["ours"]), drawn(5)
    assert torch.allclose(
        prove_routes(model, x, EPS, tolerance=0.01) + 0.02, prove_routes(model, x, EPS, tolerance=1e-3) + 2e-3
    )
    with pytest.raises(ProofError, match=r"differ by .* more than the tolerance 0"):
        prove_routes(model, x, EPS, tolerance=0.0)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ProofError, match="a number from 0"):
            prove_routes(model, x, EPS, tolerance=wrong)


def test_one_expert_and_ties() -> None:
    assert prove_routes(single(), eight_bit_clips(3), EPS).tolist() == [torch.inf] * 3
    assert not bool(excluded(single(), eight_bit_clips(3), EPS).any())
    tied = routed(Linear(3))
    with torch.no_grad():
        tied.router.get_submodule("layer").weight.zero_()  # type: ignore[operator]
        tied.router.get_submodule("layer").bias.zero_()  # type: ignore[operator]
    proof = RouteProver(tied, eight_bit_clips(1)[0])(eight_bit_clips(3), EPS)
    assert not bool(proof.proven.any()) and not bool(proof.excluded.any()) and proof.route.tolist() == [0, 0, 0]


def test_the_model_is_left_as_it_was_and_inference_mode_does_not_matter() -> None:
    model, x = routed(routers()["ours"]), drawn(4)
    expected = prove_routes(model, x, EPS)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(prove_routes(model, x, EPS), expected)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())
    with torch.inference_mode():
        assert torch.equal(prove_routes(model, x.clone(), EPS), expected)


class Of(nn.Module):
    """A router with one line of its own."""

    def __init__(self, line: Any) -> None:
        super().__init__()
        self.score, self.line = nn.Linear(3, 3), line

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.score(self.line(x).mean((2, 3, 4)))
        return found


def test_layers_without_a_bound_are_named() -> None:
    torch.manual_seed(0)
    for layers, name in (
        ([nn.Conv3d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(288, 3)], r"'1' \(GELU\).*gelu"),
        ([nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 3)], r"'1' \(LayerNorm\)"),
        ([nn.Flatten(), nn.Linear(768, 3), nn.Softmax(1)], r"'2' \(Softmax\).*softmax"),
        ([nn.LeakyReLU(-0.1), nn.Flatten(), nn.Linear(768, 3)], r"'0' \(LeakyReLU\).*negative slope"),
        ([nn.BatchNorm3d(3, track_running_stats=False), nn.Flatten(), nn.Linear(768, 3)], r"'0' \(BatchNorm3d\)"),
    ):
        with pytest.raises(HardrouteError, match="router layer " + name) as raised:
            prove_routes(routed(nn.Sequential(*layers)), drawn(2), EPS)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (lambda x: x * x, "mul of two values that both depend on the clip"),
        (lambda x: x / x.sum(), "div of two values that both depend on the clip"),
        (lambda x: torch.ones(3, 1, 1, 1) / x, "division by something"),
        (lambda x: x.sin(), "sin"),
        (lambda x: x.abs(), "abs"),
        (lambda x: -x.exp(), "exp"),
        (lambda x: x.round(), "round"),
        (lambda x: (x * 255).int().float(), "_to_copy"),
        (lambda x: x.half().float(), "_to_copy"),
        (lambda x: torch.where(x > 0.5, x, 0 * x), "gt"),
        (lambda x: x + torch.rand_like(x), "rand"),
        (lambda x: x.detach() ** 2, "pow"),
        (lambda x: x * x.argmax(), "argmax|both depend"),
        (lambda x: x.sort(2).values, "sort"),
        (lambda x: x if x.mean() > 0.5 else 2 * x, "no fixed graph"),
        (lambda x: x * float(x.mean()), "no fixed graph|both depend|layer"),
        (lambda x: x + torch.from_numpy(x.detach().numpy()), "no fixed graph|layer"),
    ],
)
def test_what_depends_on_the_clip_in_another_way_is_refused(line: Any, complaint: str) -> None:
    with pytest.raises(ProofError, match=complaint) as raised:
        prove_routes(routed(Of(line)), drawn(2), EPS)
    assert "\n" not in str(raised.value)


def test_a_router_that_shows_torch_export_another_face_is_refused() -> None:
    class TwoFaced(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3, 4)) * (1.0 if torch.compiler.is_exporting() else 50.0)

    with pytest.raises(ProofError, match="scores differ"):
        prove_routes(routed(TwoFaced()), drawn(2), EPS)


def test_broken_weights_prove_nothing() -> None:
    router = routers()["3d"]
    with torch.no_grad():
        next(router.parameters()).view(-1)[0] = torch.inf
    with pytest.raises(ProofError, match="scores differ"):
        prove_routes(routed(router), drawn(2), EPS)


@pytest.mark.parametrize("change", [{"x": drawn(2) * 2}, {"x": drawn(2).double()}, {"eps": 2.0}, {"x": drawn(2)[0]}])
def test_senseless_arguments_are_told(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"x": drawn(2), "eps": EPS} | change
    with pytest.raises(MethodError):
        prove_routes(routed(ConstantRouter(), 1), **arguments)
