"""Half precision, proven layer by layer on the machine and at the shapes that it is to be used at.

Libraries choose their kernels by processor, type and shape, and some of those compute gradients that are nowhere near
right while the outputs look well. No list of processors is ever complete. So before anything is trained or attacked in
half precision each layer is run forward and backward in it and in fp32, and what differs by more than rounding stays in
fp32.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from hardroute.models.moe import VideoMoE
from hardroute.models.restoration import StripConv3d

MEASURED: Final = (_ConvNd, _NormBase, nn.Linear, nn.LayerNorm, nn.GroupNorm)
# Rounding to bfloat16 makes about 0.004; a wrong kernel 1 and more.
LARGEST_ERROR: Final = 0.05


@dataclass(frozen=True)
class LayerError:
    """How far a layer in half precision is from the same layer in fp32, on one batch.

    Attributes:
        layer: its name in the network.
        errors: for "output", "input gradient", "weight gradient", "bias gradient", where there is one: the norm of the
            difference over the norm in fp32; infinite where a number is not finite.
    """

    layer: str
    errors: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """What is farthest off, and by how much."""
        return max(self.errors.items(), key=lambda item: item[1])

    @property
    def failed(self) -> bool:
        return self.worst[1] > LARGEST_ERROR


def measure(network: nn.Module, x: Tensor, dtype: torch.dtype, weights: bool = True) -> list[LayerError]:
    """The errors of each convolution, linear and norm layer of `network`, at the inputs that it gets from clips x.

    The network stays as it is, and so does every random state. Layers of one make that get inputs of one make are
    measured once.

    Args:
        x: (N, 3, T, H, W) in [0, 1] on the network's device: kernels differ with each of its sizes.
        weights: whether the weights' gradients are wanted; an attack needs the inputs' alone.
    """
    found: dict[str, LayerError] = {}
    known: dict[tuple[Any, ...], Mapping[str, float]] = {}
    copied = copy.deepcopy(network)
    names: dict[nn.Module, str] = {layer: name for name, layer in copied.named_modules() if isinstance(layer, MEASURED)}

    def see(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        (given,) = inputs
        make = (type(layer), repr(layer), layer.training, given.shape, given.stride(), given.dtype)
        if make not in known:
            known[make] = _unmeasurable(layer, output, dtype, weights) or _errors(layer, given, dtype, weights)
        found[names[layer]] = LayerError(names[layer], known[make])

    for layer in names:
        layer.register_forward_hook(see)
    with torch.no_grad(), torch.autocast(x.device.type, dtype):
        copied(x)
    return [found[name] for name in names.values() if name in found]


def keep_in_fp32(network: nn.Module, layers: Iterable[str]) -> None:
    """From now on the layers of those names compute in fp32 within autocast as well. Their weights stay the same."""
    for name in layers:
        layer = network.get_submodule(name)
        if not isinstance(layer, _InFp32):
            # The class, and not a module around the layer: names in a state dict stay, and copies do the same.
            layer.__class__ = type(f"Fp32{type(layer).__name__}", (_InFp32, type(layer)), {})


def prove_gradients(
    model: VideoMoE, batches: Iterable[Tensor], dtype: torch.dtype, weights: bool = True
) -> list[LayerError]:
    """Measures router and experts on each of the batches, and keeps in fp32 what failed on one.

    Args:
        batches: clips (N, 3, T, H, W) in [0, 1], one batch for each size that is to be used.
        weights: as in `measure`.

    Returns:
        The worst of each layer, those in fp32 among them (`failed`), by their names in the model.
    """
    parts = {"router": model.router, **{f"experts.{j}": expert for j, expert in enumerate(model.experts)}}
    worst: dict[str, LayerError] = {}
    for x in batches:
        for part, network in parts.items():
            for error in measure(network, x, dtype, weights):
                name = f"{part}.{error.layer}" if error.layer else part
                if name not in worst or error.worst[1] > worst[name].worst[1]:
                    worst[name] = LayerError(name, error.errors)
    keep_in_fp32(model, [name for name, error in worst.items() if error.failed])
    return list(worst.values())


class _InFp32(nn.Module):
    """Before the class of a layer: what autocast asks for does not concern it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = super().forward(x.float())
        return out


def _unmeasurable(layer: nn.Module, output: Tensor, dtype: torch.dtype, weights: bool) -> Mapping[str, float]:
    """An infinite error for a layer that must not even be tried, else nothing (models.restoration.StripConv3d)."""
    wide = isinstance(layer, nn.Conv3d) and not isinstance(layer, StripConv3d)
    if not wide or not weights or output.is_cuda or dtype != torch.bfloat16 or output.shape[-1] <= StripConv3d.WIDEST:
        return {}
    return {"weight gradient": math.inf} if torch.cpu.get_capabilities().get("amx_tile", True) else {}


def _errors(layer: nn.Module, x: Tensor, dtype: torch.dtype, weights: bool) -> dict[str, float]:
    with torch.autocast(x.device.type, enabled=False):
        out = _gradients(layer, x, None)["output"]
        # A gradient that half precision can hold, in the layout of the output.
        source = torch.Generator().manual_seed(0)
        upstream = torch.empty_like(out).copy_(torch.randn(out.shape, generator=source)).to(dtype).float()
        exact = _gradients(layer, x, None, upstream, weights)
        half = _gradients(layer, x, dtype, upstream, weights)
    return {what: _relative(half[what], exact[what]) for what in exact}


def _gradients(
    layer: nn.Module, x: Tensor, dtype: torch.dtype | None, upstream: Tensor | None = None, weights: bool = False
) -> dict[str, Tensor]:
    """Output and gradients of a copy of the layer, in half precision or, without `dtype`, in fp32."""
    mine = copy.deepcopy(layer).requires_grad_(weights)
    mine._forward_hooks.clear()
    given = (x if dtype else x.float()).detach().clone().requires_grad_(upstream is not None)
    with torch.set_grad_enabled(upstream is not None), torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        out: Tensor = mine(given)
    found = {"output": out.detach()}
    if upstream is not None:
        wanted = {"input": given} | (dict(mine.named_parameters(recurse=False)) if weights else {})
        gradients = torch.autograd.grad(out, list(wanted.values()), upstream.to(out.dtype))
        found |= {f"{name} gradient": each for name, each in zip(wanted, gradients, strict=True)}
    return found


def _relative(half: Tensor, exact: Tensor) -> float:
    difference, size = (half.double() - exact.double()).norm().item(), exact.double().norm().item()
    if not math.isfinite(difference) or not math.isfinite(size):
        return math.inf
    return difference / size if size else (math.inf if difference else 0.0)
