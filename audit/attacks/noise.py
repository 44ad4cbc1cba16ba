"""Random starts that belong to the clip: the same at any batch size, order or process count."""

import hashlib

import torch
from torch import Tensor


def per_clip(x: Tensor, seed: int) -> Tensor:
    """Uniform noise in [-1, 1] of the shape of x, each clip's drawn from a generator seeded by (seed, its pixels)."""
    noise = torch.empty(x.shape, dtype=x.dtype)
    for clip, out in zip(x.detach().cpu(), noise, strict=True):
        digest = hashlib.blake2b(clip.contiguous().numpy(), digest_size=8, key=str(seed).encode()).digest()
        # torch's seeds are signed 64-bit; the top bit is dropped rather than wrapped.
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        out.uniform_(-1, 1, generator=generator)
    return noise.to(x.device)
