"""Arithmetic that does not depend on what else is in the batch, down to the last bit.

A sign step turns a last-bit difference of a near-zero gradient into a whole step, so a clip's adversarial version
would depend on the batch it came in. Measured on CPUs: a convolution of one clip alone takes another memory layout,
and matrix products of a few rows take other kernels, than larger batches do, which all agree. Hard routing makes such
small batches all the time, since an expert sees only the clips sent to it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

# Fewest clips from which on the kernels agree; for matrices up to 8192 wide it was 1 to 16 rows, once 62.
LEAST: Mapping[Callable[..., Tensor], int] = {torch.conv3d: 2, torch.conv2d: 2, linear: 64}


class Steady(TorchFunctionMode):
    """Within: the operations of LEAST run on copies of their first clip as well where the batch is too small.

    The copies' outputs are dropped. Only one clip alone is convolved twice over, and still no slower than by itself
    for networks of few channels, whose convolutions gain as much from the other layout. Operations that are not
    in LEAST, such as a bare matrix product, are not covered.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        least = LEAST.get(func)
        if least is None or len(args) < 2:
            return func(*args, **kwargs)
        x, *rest = args
        # An input of a lower rank than the weights has no batch dimension.
        if x.dim() < rest[0].dim() or not 0 < len(x) < least:
            return func(*args, **kwargs)
        # Detached: the copies' gradient is zero, and adding it up would cost time.
        filled = torch.cat([x, x[:1].detach().expand(least - len(x), *x.shape[1:])])
        return func(filled, *rest, **kwargs)[: len(x)]
