"""Rounding for replay: 8-bit, inside the box, and as near as both allow."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardroute.audit.attacks.quantize import nearest_inside, to_frames
from hardroute.runtime.clips import to_network


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.floats(0, 1))
def test_rounded_clips_stay_inside_the_box_and_are_the_nearest_there(seed: int, steps: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (2, 3, 2, 2, 2), generator=generator)
    x = torch.from_numpy(to_network(clean.permute(0, 2, 3, 4, 1).numpy().astype(np.uint8)))
    eps = (steps + share) / 255 if steps < 255 else 1.0
    x_adv = (x + eps * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    frames = nearest_inside(x, x_adv, eps)
    moved = np.abs(frames.astype(int) - clean.permute(0, 2, 3, 4, 1).numpy())
    assert frames.dtype == np.uint8 and moved.max() <= eps * 255 + 1e-3
    off = np.abs(frames - (x_adv * 255).permute(0, 2, 3, 4, 1).numpy())
    # Half a step where the nearest value lies in the box, less than a whole one where it had to step back.
    assert off.max() < 1 and (off[moved < np.floor(eps * 255)] <= 0.5 + 1e-3).all()


def test_whole_steps_and_clean_clips_come_back_exactly() -> None:
    frames = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
    x = torch.from_numpy(to_network(frames))
    assert (to_frames(x) == frames).all()
    assert (nearest_inside(x, x, 0.0) == frames).all()
    brighter = torch.minimum(x + 8 / 255, torch.ones(()))
    assert (nearest_inside(x, brighter, 8 / 255) == np.minimum(frames.astype(int) + 8, 255)).all()
