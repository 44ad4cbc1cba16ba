"""The mixture, its gradient paths, the experts and their checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hardroute.models import (
    ExpertSpec,
    ModelSpec,
    RouterSpec,
    VideoMoE,
    build_expert,
    build_model,
    load_twin,
    save_twin,
)
from hardroute.models.normalize import BatchNorm3d
from hardroute.models.restoration import OverUnder
from hardroute.models.router import ConvRouter
from hardroute.runtime.errors import BundleError, MethodError

SHAPE = (3, 4, 8, 8)
TINY = ModelSpec(classes=5, router=RouterSpec(width=2), experts=(ExpertSpec(width=2, blocks=(1, 1, 0, 0)),) * 3)


class Linear(nn.Module):
    """Flattened clip times a matrix; counts the clips it was given."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 4 * 8 * 8, outputs))
        self.clips = 0

    def forward(self, x: Tensor) -> Tensor:
        self.clips += len(x)
        return x.flatten(1) @ self.weight


@pytest.fixture
def linear() -> VideoMoE:
    return VideoMoE(Linear(4), [Linear(5) for _ in range(4)])


def clips(n: int) -> Tensor:
    return torch.rand(n, *SHAPE)


@pytest.mark.parametrize("n", [1, 2, 17])
def test_each_clip_gets_the_logits_of_the_expert_with_the_highest_score(linear: VideoMoE, n: int) -> None:
    x = clips(n)
    route = linear.router(x).argmax(1)
    expected = torch.stack([linear.experts[j](x[i : i + 1])[0] for i, j in enumerate(route)])
    # Sums of 768 terms: rows of one matrix product and of many round differently.
    torch.testing.assert_close(linear(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(linear.outputs(x).route, route)


def test_only_the_chosen_experts_run(linear: VideoMoE) -> None:
    x = clips(17)
    load = torch.bincount(linear.outputs(x).route, minlength=4).tolist()
    assert max(load) < 17, "the clips must be spread for this to show anything"
    linear(x)
    assert [expert.clips for expert in linear.experts] == load


@pytest.mark.parametrize(("path", "again"), [("hard", 4), ("switch", 4), ("straight-through", 0), ("soft", 0)])
def test_no_expert_looks_at_a_clip_twice(linear: VideoMoE, path: str, again: int) -> None:
    x = clips(9).requires_grad_(True)
    outputs = linear.outputs(x, path)
    index = outputs.route.clone()
    index[:4] = (index[:4] + 1) % 4  # other experts than the chosen ones for 4 clips
    chosen, logits = outputs.deployed, outputs.logits
    looks = torch.tensor([expert.clips for expert in linear.experts])
    named = outputs.expert(index)
    assert (torch.tensor([expert.clips for expert in linear.experts]) - looks).sum() == again
    assert outputs.expert(index) is named or again == 0
    torch.testing.assert_close(named, linear.dispatch(x, index))
    # The shared pass gives each of its uses its gradient.
    upstream = torch.randn(2, 9, 5)
    found = torch.autograd.grad((upstream[0] * chosen + upstream[1] * named).sum() + logits.sum(), x)[0]
    apart = (upstream[0] * linear(x) + upstream[1] * linear.dispatch(x, index)).sum()
    expected = torch.autograd.grad(apart + linear.outputs(x, path).logits.sum(), x)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("path", ["hard", "soft"])
def test_logits_without_a_graph_are_not_used_where_one_is_wanted(linear: VideoMoE, path: str) -> None:
    outputs = linear.outputs(clips(3).requires_grad_(True), path)
    with torch.no_grad():
        assert not outputs.expert(outputs.route).requires_grad and not outputs._every.requires_grad
    assert outputs.expert(outputs.route).requires_grad


@pytest.mark.parametrize("path", ["hard", "switch", "straight-through", "soft"])
def test_paths_are_their_formulas(linear: VideoMoE, path: str) -> None:
    x = clips(6)
    router, every = linear.router(x), linear.every_expert(x)
    gate, chosen = router.softmax(1), nn.functional.one_hot(router.argmax(1), 4).float()
    weights = {"hard": chosen, "switch": chosen * gate, "straight-through": chosen, "soft": gate}[path]
    outputs = linear.outputs(x, path)
    torch.testing.assert_close(outputs.logits, torch.einsum("nm,nmk->nk", weights, every))
    torch.testing.assert_close(outputs.deployed, linear(x))


@pytest.mark.parametrize(
    ("path", "reaches"), [("hard", False), ("switch", True), ("straight-through", True), ("soft", True)]
)
def test_the_router_has_a_gradient_on_every_path_but_the_hard_one(linear: VideoMoE, path: str, reaches: bool) -> None:
    linear.outputs(clips(6), path).logits.square().sum().backward()
    (weight,) = linear.router.parameters()
    gradient = weight.grad
    assert (gradient is not None and bool(gradient.abs().sum() > 0)) == reaches


def test_the_straight_through_gradient_is_that_of_the_soft_gate(linear: VideoMoE) -> None:
    x = clips(6)
    upstream = torch.randn(6, 5)
    (weight,) = linear.router.parameters()
    found = torch.autograd.grad((linear.outputs(x, "straight-through").logits * upstream).sum(), weight)[0]
    every = linear.every_expert(x).detach()
    gate = linear.router(x).softmax(1)
    expected = torch.autograd.grad((torch.einsum("nm,nmk->nk", gate, every) * upstream).sum(), weight)[0]
    torch.testing.assert_close(found, expected)


def test_an_unknown_path_is_named_with_the_known_ones(linear: VideoMoE) -> None:
    with pytest.raises(MethodError, match=r"'tunnel'.*hard, switch"):
        linear.outputs(clips(1), "tunnel")


def test_a_gain_scales_the_scores_and_leaves_the_route() -> None:
    x = torch.rand(6, 3, 4, 16, 16)
    found = []
    for gain in (1.0, 0.25):
        torch.manual_seed(0)
        found.append(build_model(TINY.model_copy(update={"router": RouterSpec(width=2, gain=gain)})).eval().outputs(x))
    torch.testing.assert_close(found[1].router, 0.25 * found[0].router)
    assert torch.equal(found[1].route, found[0].route)


def test_the_router_costs_a_few_per_cent_of_an_expert() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def cost(network: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.rand(1, 3, 12, 48, 48))
        return counter.get_total_flops()

    assert cost(ConvRouter(4)) < 0.05 * cost(build_expert("r3d18", classes=10, width=16))


class TestCheckpoint:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_twin(build_model(TINY), TINY, tmp_path)
        return tmp_path

    def test_comes_back_as_it_was(self, tmp_path: Path) -> None:
        model = build_model(TINY).eval()
        save_twin(model, TINY, tmp_path)
        x = clips(4)
        assert torch.equal(load_twin(tmp_path)(x), model(x))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["twin.json", "twin.safetensors"]

    def test_is_readable_by_other_users(self, folder: Path) -> None:
        assert (folder / "twin.safetensors").stat().st_mode & 0o044 == 0o044

    @pytest.mark.parametrize("name", ["twin.json", "twin.safetensors"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "text"])
    def test_a_damaged_file_is_one_clear_line(self, folder: Path, name: str, damage: str) -> None:
        if damage == "missing":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(b"" if damage == "empty" else b"not a checkpoint")
        with pytest.raises(BundleError) as raised:
            load_twin(folder)
        assert str(folder) in str(raised.value)

    def test_weights_of_another_architecture_are_refused(self, folder: Path) -> None:
        wider = TINY.model_copy(update={"router": RouterSpec(width=4)})
        (folder / "twin.json").write_text(wider.model_dump_json())
        with pytest.raises(BundleError, match=r"twin\.safetensors does not fit"):
            load_twin(folder)


class TestRestore:
    def test_begins_as_the_identity_and_keeps_the_range(self) -> None:
        x = torch.rand(2, 3, 4, 9, 7)
        front = OverUnder(4)
        torch.testing.assert_close(front(x), x)
        torch.nn.init.normal_(front.residual.weight, std=5)
        moved = front(x)
        assert moved.shape == x.shape and not torch.allclose(moved, x)
        assert moved.min() >= 0 and moved.max() <= 1

    def test_is_one_network_for_router_and_experts_and_stays_so_in_a_checkpoint(self, tmp_path: Path) -> None:
        spec = TINY.model_copy(update={"restore": 2})
        model = build_model(spec)
        fronts = {id(part.get_submodule("front")) for part in (model.router, *model.experts)}
        assert len(fronts) == 1
        save_twin(model.eval(), spec, tmp_path)
        x = clips(3)
        torch.testing.assert_close(load_twin(tmp_path)(x), model(x))


def test_a_batch_of_one_value_per_channel_is_normalised_by_what_was_gathered() -> None:
    norm, x = BatchNorm3d(2), torch.rand(4, 2, 1, 1, 1)
    norm(x)
    gathered = {name: value.clone() for name, value in norm.state_dict().items()}
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    found = norm(x[:1])
    torch.testing.assert_close(found.flatten(), (x[0].flatten() - mean) / (var + norm.eps).sqrt())
    assert all(torch.equal(value, gathered[name]) for name, value in norm.state_dict().items())
    torch.testing.assert_close(norm(x), torch.nn.BatchNorm3d(2)(x))
