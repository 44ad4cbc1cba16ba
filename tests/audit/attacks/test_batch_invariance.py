"""A clip's adversarial version is its own: the same at any batch size and in any order."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from hardroute.audit.attacks import ATTACKS
from hardroute.audit.attacks.batch_invariance import LEAST, batch_invariant
from hardroute.models import VideoMoE, build_model
from hardroute.models.build import ExpertSpec, ModelSpec, RouterSpec
from tests.support.audit_models import answers

CLIPS = 9


@pytest.fixture(scope="module")
def routed() -> tuple[VideoMoE, Tensor, Tensor]:
    """A small 3D ResNet mixture that sends its clips to several experts."""
    torch.manual_seed(0)
    spec = ModelSpec(classes=5, router=RouterSpec(width=2), experts=(ExpertSpec(width=4, blocks=(1, 1, 1, 1)),) * 4)
    model, x = build_model(spec), torch.rand(CLIPS, 3, 12, 32, 32)
    with torch.no_grad():
        model.every_expert(x)  # batch statistics that fit the clips
        model.router(x)
        model.eval()
        # Centred, so that the clips spread over the experts.
        assert isinstance(model.router.score, nn.Linear)
        model.router.score.weight.mul_(50)
        model.router.score.bias.sub_(model.router(x).mean(0))
    assert len(model.router(x).argmax(1).unique()) >= 3
    return model, x, answers(model, x)


@pytest.mark.parametrize("name", ["pgd-hard", "j-tlga"])
def test_batch_size_and_order_do_not_matter(routed: tuple[VideoMoE, Tensor, Tensor], name: str) -> None:
    model, x, y = routed
    whole = ATTACKS[name](model, x, y, steps=6)
    order = torch.randperm(CLIPS)
    for size in (1, 4):
        parts = [ATTACKS[name](model, x[at], y[at], steps=6) for at in order.split(size)]
        assert torch.allclose(torch.cat(parts), whole[order], rtol=0, atol=1e-6)


def test_the_model_computes_what_it_computed(routed: tuple[VideoMoE, Tensor, Tensor]) -> None:
    model, x, _ = routed
    for n in (1, 3, CLIPS):
        plain, clips = model(x[:n]), x[:n].clone().requires_grad_(True)
        with batch_invariant(model):
            found = model(clips)
        assert found.shape == plain.shape and torch.allclose(found, plain, atol=1e-5)
        (gradient,) = torch.autograd.grad(found.square().sum(), clips)
        again = x[:n].clone().requires_grad_(True)
        (expected,) = torch.autograd.grad(model(again).square().sum(), again)
        assert torch.allclose(gradient, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", LEAST)
def test_the_list_covers_the_smallest_batches(kind: type[nn.Module]) -> None:
    layer: nn.Module = nn.Linear(512, 8)
    x = torch.rand(128, 512)
    if kind is not nn.Linear:
        layer = kind(8, 8, 3)
        x = torch.rand(6, 8, *[9] * (2 if kind is nn.Conv2d else 3))

    def run(clips: Tensor) -> tuple[Tensor, Tensor]:
        clips = clips.clone().requires_grad_(True)
        with batch_invariant(layer):
            out = layer(clips)
        return out.detach(), torch.autograd.grad(out.square().sum(), clips)[0]

    whole = run(x)
    for n in range(1, len(x)):
        assert all(torch.equal(part, all_[:n]) for part, all_ in zip(run(x[:n]), whole, strict=True))


@pytest.mark.parametrize(("clips", "tokens", "rows"), [(1, 392, 392), (1, 10, 70), (3, 10, 70), (1, 1, 64)])
def test_the_tokens_of_a_clip_are_rows(clips: int, tokens: int, rows: int) -> None:
    """A transformer's layers multiply far more rows than there are clips; copies of clips would only cost."""
    layer, seen = nn.Linear(6, 4), []

    def forward(input: Tensor) -> Tensor:
        seen.append(input.shape[:-1].numel())
        return nn.functional.linear(input, layer.weight, layer.bias)

    vars(layer)["forward"] = forward
    x = torch.rand(clips, tokens, 6)
    with batch_invariant(layer):
        assert layer(x).shape == (clips, tokens, 4)
    assert seen == [rows]


def test_the_batch_does_not_matter_to_a_transformer() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 384)
    for tokens in (1, 5, 49, 392):
        x = torch.rand(9, tokens, 96)
        with batch_invariant(layer):
            whole = layer(x)
            assert all(torch.equal(layer(x[n : n + 1]), whole[n : n + 1]) for n in range(9)), tokens


def test_inputs_without_a_batch_pass_through() -> None:
    layers = nn.ModuleList([nn.Linear(5, 3), nn.Conv3d(2, 3, 3)])
    with batch_invariant(layers):
        assert layers[0](torch.rand(5)).shape == (3,)
        assert layers[0](input=torch.rand(2, 5)).shape == (2, 3)
        assert layers[1](torch.rand(2, 4, 5, 6)).shape == (3, 2, 3, 4)


def test_layers_are_as_they_were_afterwards() -> None:
    plain, patched = nn.Linear(5, 3), nn.Linear(5, 3)
    own = patched.forward = lambda input: input  # type: ignore[method-assign]
    model = nn.ModuleList([plain, patched])
    seen: list[int] = []
    plain.register_forward_hook(lambda layer, args, out: seen.extend((len(args[0]), len(out))))
    with contextlib.suppress(ZeroDivisionError), batch_invariant(model), batch_invariant(model):
        assert plain(torch.rand(2, 5)).shape == (2, 3) and patched(torch.rand(2, 5)).shape == (2, 5)
        raise ZeroDivisionError
    assert "forward" not in vars(plain) and vars(patched)["forward"] is own
    assert seen == [2, 2]  # nobody else sees the copies
