"""Randomness that belongs to the clip: the same at any batch size, order or process count."""

import hashlib

import torch
from torch import Tensor


def generators(x: Tensor, seed: int) -> list[torch.Generator]:
    """A CPU generator for each clip of x, seeded by (seed, its pixels)."""
    found = []
    for clip in x.detach().cpu():
        digest = hashlib.blake2b(clip.contiguous().numpy(), digest_size=8, key=str(seed).encode()).digest()
        # torch's seeds are signed 64-bit; the top bit is dropped rather than wrapped.
        found.append(torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1))
    return found


def per_clip(x: Tensor, seed: int) -> Tensor:
    """Uniform noise in [-1, 1] of the shape of x, each clip's drawn from its own generator."""
    noise = torch.empty(x.shape, dtype=x.dtype)
    for generator, out in zip(generators(x, seed), noise, strict=True):
        out.uniform_(-1, 1, generator=generator)
    return noise.to(x.device)
