"""Batches of training clips: shuffled by (seed, epoch), turned into network input, augmented."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays


def augment(x: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each clip (N, C, T, H, W) by up to `shift` pixels (edges repeat) and mirror half of them if `flip`.

    One shift per clip, the same in all its frames: a shift that changed over time would be motion.
    """
    if not shift and not flip:
        return x
    n, _, _, height, width = x.shape
    offsets = torch.randint(0, 2 * shift + 1, (n, 2), generator=generator).tolist()
    mirror = (torch.rand(n, generator=generator) < 0.5).tolist()
    wide = pad(x.flatten(1, 2), (shift,) * 4, mode="replicate").view(
        *x.shape[:3], height + 2 * shift, width + 2 * shift
    )
    out = torch.empty_like(x)
    for i, (top, left) in enumerate(offsets):
        clip = wide[i, :, :, top : top + height, left : left + width]
        out[i] = clip.flip(-1) if flip and mirror[i] else clip
    return out


def batches(
    clips: ClipArrays, size: int, device: str, order: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x (n, 3, T, H, W) in [0, 1], y (n,)) batches of every clip, in their order.

    With `order`: of one clip of each video, drawn at random, shuffled, and the ragged last batch dropped.
    """
    if order is None:
        index = np.arange(len(clips.labels))
        ends = range(0, len(index), size)
    else:
        index = torch.randperm(clips.videos, generator=order).numpy()
        if clips.per_video > 1:
            index = index * clips.per_video + torch.randint(clips.per_video, index.shape, generator=order).numpy()
        ends = range(0, max(len(index) - size, 0) + 1, size)
    for start in ends:
        chosen = index[start : start + size]
        x = torch.from_numpy(to_network(clips.frames[chosen])).to(device, non_blocking=True)
        yield x, torch.from_numpy(clips.labels[chosen]).to(device)
