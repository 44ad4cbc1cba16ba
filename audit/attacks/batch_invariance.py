"""Arithmetic that does not depend on what else is in the batch, down to the last bit.

A sign step turns a last-bit difference of a near-zero gradient into a whole step, so a clip's adversarial version
would depend on the batch it came in. Measured on CPUs: a convolution of one clip alone takes another memory layout,
and matrix products of a few rows take other kernels, than larger batches do, which all agree. Hard routing makes such
small batches all the time, since an expert sees only the clips sent to it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil

import torch
from torch import Tensor, nn

# Fewest rows from which on the kernels agree (for matrices up to 8192 wide it was 1 to 16, once 62; for convolutions a
# row is a clip), and the rank of a batch. A linear layer multiplies as many rows as its input has vectors, such as the
# tokens of a clip: they count, not the clips.
LEAST: Mapping[type[nn.Module], tuple[int, int]] = {nn.Conv3d: (2, 5), nn.Conv2d: (2, 4), nn.Linear: (64, 2)}


@contextmanager
def batch_invariant(model: nn.Module) -> Iterator[None]:
    """Within: the layers of LEAST run on copies of their first clip as well where the batch has too few rows.

    The copies' outputs are dropped. Only one clip alone is convolved twice over, and still no slower than by itself
    for networks of few channels, whose convolutions gain as much from the other layout. What is computed outside
    such layers, as by a bare matrix product, is not covered.
    """
    # The layers' own forwards rather than hooks, which other people's hooks would see, or a mode that sees every
    # operation: on a small network that cost 1.5 % of an attack's time.
    layers = [(layer, *need) for layer in model.modules() for kind, need in LEAST.items() if isinstance(layer, kind)]
    before = [vars(layer).get("forward") for layer, *_ in layers]
    try:
        for layer, least, rank in layers:
            vars(layer)["forward"] = _filling(layer.forward, least, rank)
        yield
    finally:
        for (layer, *_), forward in zip(layers, before, strict=True):
            if forward is None:
                del vars(layer)["forward"]
            else:
                vars(layer)["forward"] = forward


def _filling(forward: Callable[[Tensor], Tensor], least: int, rank: int) -> Callable[[Tensor], Tensor]:
    def run(input: Tensor) -> Tensor:
        n = len(input)
        # An input of a lower rank has no batch dimension.
        if input.dim() < rank or not input.numel():
            return forward(input)
        enough = ceil(least / input.shape[1:-1].numel()) if rank == 2 else least
        if n >= enough:
            return forward(input)
        # Detached: the copies' gradient is zero, and adding it up would cost time.
        return forward(torch.cat([input, input[:1].detach().expand(enough - n, *input.shape[1:])]))[:n]

    return run
