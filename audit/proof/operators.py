"""What torch's operators do to bounds: which are affine or monotone in the clip, and with what coefficients.

An operator is met as a node of an exported network (hardroute.audit.proof.network), for a batch of one clip. Its
arguments are Slots where they depend on the clip, and constants otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, prod
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate

Function = Callable[..., Tensor]
Adjoint = Callable[[Tensor], tuple[Tensor, ...]]
Arguments = Sequence[Any]
Keywords = Mapping[str, Any]


@dataclass(frozen=True)
class Slot:
    """Where input number `index` of an operator stands in its arguments."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operator between the clip and the scores.

    Attributes:
        layer: where it stands in the network, for people.
        inputs: places of the values that it takes; 0 is the clip, n + 1 what step n gives.
        like: for each input, zeros of its shape.
        apply: its result for a batch of one clip.
    """

    layer: str
    inputs: tuple[int, ...]
    like: tuple[Tensor, ...]
    apply: Function


@dataclass(frozen=True)
class Relu(Step):
    """max(x, 0)."""


@dataclass(frozen=True)
class Monotone(Step):
    """A function that never falls where one of its inputs rises. `steepness`: an L2 Lipschitz bound of it."""

    steepness: float


@dataclass(frozen=True)
class Affine(Step):
    """A x + b, of one value or of several together. `absolute`: |A| r, each coefficient by its absolute value."""

    absolute: Function

    @cached_property
    def offset(self) -> Tensor:
        """b."""
        return self.apply(*self.like)

    @cached_property
    def adjoint(self) -> Adjoint:
        """A^T, as torch differentiates A: of one row over the result, one row over each input."""
        return torch.func.vjp(self.apply, *self.like)[1]

    @cached_property
    def absolute_adjoint(self) -> Adjoint:
        """|A|^T."""
        return torch.func.vjp(self.absolute, *self.like)[1]


class Unbounded(Exception):
    """No bound is known for an operator; the text says why."""


def step(op: Any, args: Arguments, kwargs: Keywords, layer: str, inputs: Sequence[int], like: Sequence[Tensor]) -> Step:
    """The operator as a step. Raises Unbounded for one that is neither affine nor monotone in its inputs."""
    name, where = operator_name(op), (layer, tuple(inputs), tuple(like))
    if name == "relu":
        return Relu(*where, _filled(op, args, kwargs))
    if name in MONOTONE:
        return Monotone(*where, _first(_filled(op, args, kwargs)), _steepness(name, args))
    if name in AFFINE:
        apply, absolute = AFFINE[name](op, args, kwargs)
        return Affine(*where, apply, absolute)
    raise Unbounded(f"{name} is neither affine nor ReLU, pooling or another monotone function")


def operator_name(op: Any) -> str:
    """`conv3d` of aten.conv3d.default."""
    parts = str(op).split(".")
    return parts[1] if len(parts) > 1 else getattr(op, "__name__", str(op))


def passes_on(op: Any, args: Arguments, kwargs: Keywords) -> bool:
    """Whether the result is the first argument itself, in real numbers."""
    name = operator_name(op)
    if name in ("_to_copy", "to"):
        found: list[Any] = []
        map_aggregate((args[1:], dict(kwargs)), found.append)
        return all(each in (torch.float32, torch.float64) for each in found if isinstance(each, torch.dtype))
    if name == "dropout":
        return not args[2]
    return name in {"alias", "clone", "contiguous", "detach", "detach_", "lift_fresh_copy"}


def _steepness(name: str, args: Arguments) -> float:
    """Raises Unbounded for arguments with which the function is not monotone."""
    if name == "leaky_relu":
        slope = args[1] if len(args) > 1 else 0.01
        if slope < 0:
            raise Unbounded(f"{name} of a negative slope")
        return max(1.0, slope)
    if name.startswith("adaptive_max_pool"):
        return inf  # windows overlap as the sizes have it
    if name.startswith("max_pool"):
        # A pixel is the maximum of as many windows as hold it.
        dims = int(name[8])
        kernel, stride, _, dilation = (_per_dim(args, place, dims) for place in (1, 2, 3, 4))
        stride = stride or kernel
        windows = (k if any(d > 1 for d in dilation) else ceil(k / s) for k, s in zip(kernel, stride, strict=True))
        return float(prod(windows)) ** 0.5
    return 1.0


def _per_dim(args: Arguments, place: int, dims: int) -> list[int]:
    """One number for each dimension, where one stands for all of them."""
    found = list(args[place]) if len(args) > place else []
    return found * dims if len(found) == 1 else found


def _filled(op: Any, args: Arguments, kwargs: Keywords) -> Function:
    """The operator as a function of its inputs alone."""

    def function(*values: Tensor) -> Any:
        def fill(each: Any) -> Any:
            return values[each.index] if isinstance(each, Slot) else each

        return op(*map_aggregate(tuple(args), fill), **map_aggregate(dict(kwargs), fill))

    return function


def _first(function: Callable[..., Any]) -> Function:
    """Of an operator that says where it found a maximum as well: the maximum."""

    def first(*values: Tensor) -> Tensor:
        found = function(*values)
        return found if isinstance(found, Tensor) else found[0]

    return first


def _slots(args: Any) -> list[Slot]:
    found: list[Slot] = []
    map_aggregate(tuple(args), lambda each: found.append(each) if isinstance(each, Slot) else None)
    return found


def _without_constants(args: Arguments) -> Arguments:
    return map_aggregate(tuple(args), lambda each: torch.zeros_like(each) if isinstance(each, Tensor) else each)


def _magnitude(each: Any) -> Any:
    return each.abs() if isinstance(each, Tensor) else abs(each) if isinstance(each, int | float) else each


# Each of the following gives (apply, absolute) of one family of affine operators.


def _arranging(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    """Values moved about, summed or averaged: no coefficient is negative."""
    name = operator_name(op)
    bare = _without_constants(args)
    if name in ("constant_pad_nd", "pad"):  # without the value that is padded with
        return _filled(op, args, kwargs), _filled(op, bare[: 2 if name == "constant_pad_nd" else 3], {})
    # A condition or an index stays what it is.
    fixed = {"where": 0, "index": 1, "index_select": 2}.get(name)
    if fixed is not None:
        bare = (*bare[:fixed], args[fixed], *bare[fixed + 1 :])
    return _filled(op, args, kwargs), _filled(op, bare, kwargs)


def _weighted(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    """(x, weight, bias, ...): convolutions and linear layers."""
    if kwargs or _slots(args[1:]):
        raise Unbounded(f"the weights of this {operator_name(op)} depend on the clip")
    return _filled(op, args, kwargs), _filled(op, (args[0], args[1].abs(), None, *args[3:]), kwargs)


def _product(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    if kwargs or len(_slots(args)) != 1:
        raise Unbounded(f"{operator_name(op)} of two values that both depend on the clip")
    return _filled(op, args, kwargs), _filled(op, [_magnitude(each) for each in args], kwargs)


def _quotient(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    if not isinstance(args[0], Slot) or kwargs:
        raise Unbounded("a division by something that depends on the clip, or a rounded one")
    return _product(op, args, kwargs)


def _sum(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    """a + alpha b, or a - alpha b."""
    bare = tuple(each if isinstance(each, Slot) else torch.zeros_like(torch.as_tensor(each)) for each in args[:2])
    alpha = args[2] if len(args) > 2 else kwargs.get("alpha", 1)

    def absolute(*radii: Tensor) -> Tensor:
        first, second = (radii[each.index] if isinstance(each, Slot) else each for each in bare)
        return first + abs(alpha) * second

    return _filled(op, args, kwargs), absolute


def _negation(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    """-x, or a constant minus alpha x."""
    alpha = args[2] if len(args) > 2 else kwargs.get("alpha", 1)
    if len(_slots(args)) != 1 or not isinstance(args[0], Slot):
        raise Unbounded("a difference written the other way round")
    return _filled(op, args, kwargs), lambda radius: abs(alpha) * radius


def _matrix_sum(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    """addmm: bias + a b."""
    bias, *factors = args
    if kwargs or len(_slots(factors)) != 1:
        raise Unbounded("a matrix product of two values that both depend on the clip, or a scaled one")
    bare = bias if isinstance(bias, Slot) else torch.zeros_like(bias)
    return _filled(op, args, kwargs), _filled(op, (bare, *(_magnitude(each) for each in factors)), kwargs)


def _normalised(op: Any, args: Arguments, kwargs: Keywords) -> tuple[Function, Function]:
    """Batch norm by its running statistics: (x, weight, bias, mean, var, momentum, eps)."""
    _, weight, bias, mean, var = args[:5]
    if _slots(args[1:]) or mean is None or var is None:
        raise Unbounded("batch norm by the statistics of the batch, not by running ones")
    scale = (var + args[6]).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale

    def along(channels: Tensor, value: Tensor) -> Tensor:
        return channels.view(-1, *[1] * (value.dim() - 2))

    return (
        lambda value: along(scale, value) * value + along(shift, value),
        lambda radius: along(scale.abs(), radius) * radius,
    )


# By the names of torch.export's operators.
MONOTONE = {
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "amin", "clamp", "clamp_max"),
    *("clamp_min", "hardtanh", "leaky_relu", "max", "max_pool1d", "max_pool2d", "max_pool2d_with_indices"),
    *("max_pool3d", "max_pool3d_with_indices", "maximum", "min", "minimum", "sigmoid", "tanh"),
}
AFFINE: dict[str, Callable[[Any, Arguments, Keywords], tuple[Function, Function]]] = {
    "_native_batch_norm_legit_no_training": _normalised,
    "addmm": _matrix_sum,
    "div": _quotient,
} | {
    name: family
    for family, names in {
        _weighted: ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"),
        _product: ("bmm", "dot", "matmul", "mm", "mul", "mv"),
        _sum: ("add", "sub"),
        _negation: ("neg", "rsub"),
        _arranging: (
            *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d"),
            *("avg_pool3d", "cat", "constant_pad_nd", "expand", "flatten", "flip", "index", "index_select", "mean"),
            *("movedim", "narrow", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape", "roll"),
            *("select", "select_scatter", "slice", "slice_scatter", "squeeze", "stack", "sum", "t", "transpose"),
            *("unflatten", "unsqueeze", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d"),
            *("upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d", "view", "where", "_unsafe_view"),
        ),
    }.items()
    for name in names
}
