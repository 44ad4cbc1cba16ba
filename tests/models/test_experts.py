"""The video networks against their descriptions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hardroute.models import EXPERTS, build_expert
from hardroute.models.experts.resnet import BasicBlock
from hardroute.models.experts.tsm import TemporalShift
from hardroute.runtime.errors import MethodError

KINDS = sorted(EXPERTS)


def expert(kind: str, classes: int = 5, width: int = 8, **more: object) -> nn.Module:
    torch.manual_seed(3)
    network = build_expert(kind, classes, width, **more).eval()  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):  # as after training: not the identity
            module.running_mean = torch.empty(module.num_features).uniform_(-0.2, 0.2)
            module.running_var = torch.empty(module.num_features).uniform_(0.5, 2)
    return network


def clips(n: int, frames: int = 8) -> Tensor:
    return torch.rand(n, 3, frames, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "published"), [("r3d18", 33_371_472), ("r2plus1d18", 31_505_325)])
def test_has_the_published_size(kind: str, published: int) -> None:
    # What torchvision documents for its networks of these names with 400 classes.
    assert sum(weight.numel() for weight in build_expert(kind, classes=400).parameters()) == published


@pytest.mark.parametrize("frames", [1, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_takes_raw_pixels_of_any_length_and_gives_logits(kind: str, frames: int) -> None:
    assert expert(kind)(clips(3, frames)).shape == (3, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_sees_the_order_of_frames(kind: str) -> None:
    x, network = clips(2), expert(kind)
    assert not torch.allclose(network(x), network(x.flip(2)), atol=1e-4)


def test_without_the_shift_a_2d_network_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TemporalShift, "forward", lambda self, x: x)
    x, network = clips(2), expert("tsm")
    torch.testing.assert_close(network(x), network(x.flip(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_clips_do_not_see_each_other(kind: str) -> None:
    x, network = clips(3), expert(kind)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_width_and_depth_are_settings(kind: str) -> None:
    short = expert(kind, width=4, blocks=(1, 0, 1, 0))
    assert short(clips(2)).shape == (2, 5)
    assert len([m for m in short.modules() if isinstance(m, BasicBlock)]) == (4 if kind == "slowfast" else 2)


def test_the_shift_moves_an_eighth_of_the_channels_each_way() -> None:
    x = torch.rand(2, 16, 5, 3, 3)
    shifted = TemporalShift()(x)
    assert torch.equal(shifted[:, :2, :-1], x[:, :2, 1:]) and not shifted[:, :2, -1].any()
    assert torch.equal(shifted[:, 2:4, 1:], x[:, 2:4, :-1]) and not shifted[:, 2:4, 0].any()
    assert torch.equal(shifted[:, 4:], x[:, 4:])


def test_tsm_is_a_2d_network_on_frames_whose_logits_are_averaged() -> None:
    """Written anew with 2D layers, frames folded into the batch."""
    network, x = expert("tsm"), clips(2)
    frames = x.shape[2]

    def flat(module: nn.Module, f: Tensor) -> Tensor:
        """One 3D layer of the network as its 2D kin, on (N*T, C, H, W)."""
        if isinstance(module, nn.Sequential):
            for each in module:
                f = flat(each, f)
            return f
        if isinstance(module, nn.Conv3d):
            margin = [int(side) for side in module.padding[1:]]
            return nn.functional.conv2d(f, module.weight.squeeze(2), None, list(module.stride[1:]), margin)
        if isinstance(module, nn.BatchNorm3d):
            arguments = module.running_mean, module.running_var, module.weight, module.bias
            return nn.functional.batch_norm(f, *arguments, eps=module.eps)
        if isinstance(module, nn.MaxPool3d):
            return nn.functional.max_pool2d(f, 3, 2, 1)
        if isinstance(module, TemporalShift):
            clip = f.unflatten(0, (-1, frames))
            out, part = torch.zeros_like(clip), clip.shape[2] // 8
            out[:, :-1, :part] = clip[:, 1:, :part]
            out[:, 1:, part : 2 * part] = clip[:, :-1, part : 2 * part]
            out[:, :, 2 * part :] = clip[:, :, 2 * part :]
            return out.flatten(0, 1)
        if isinstance(module, BasicBlock):
            return (flat(module.conv2, flat(module.conv1, f)) + flat(module.downsample, f)).relu()
        return module(f)

    f = network.normalize(x).transpose(1, 2).flatten(0, 1)  # type: ignore[operator]
    for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
        f = flat(network.get_submodule(name), f)
    logits = network.get_submodule("fc")(f.mean((2, 3))).unflatten(0, (-1, frames)).mean(1)
    torch.testing.assert_close(network(x), logits, rtol=1e-4, atol=1e-5)


def test_the_slow_pathway_sees_every_fourth_frame_only() -> None:
    network, x = expert("slowfast"), clips(1)
    seen: list[Tensor] = []
    network.get_submodule("slow_stem").register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(x)
    torch.testing.assert_close(seen[0], network.normalize(x[:, :, ::4]))  # type: ignore[operator]


def test_an_unknown_kind_is_named_with_the_known_ones() -> None:
    with pytest.raises(MethodError, match=r"'vit'.*r3d18"):
        build_expert("vit", classes=5)
