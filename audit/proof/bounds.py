"""Bounds of a network's scores over a box of clips: by intervals (IBP) and by backward linear bounds (CROWN-IBP).

Interval bound propagation: Gowal et al. 2018. CROWN: Zhang et al. 2018; with intervals for what lies inside, CROWN-IBP:
Zhang et al. 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hardroute.audit.proof.network import Network
from hardroute.audit.proof.operators import Affine, Monotone, Relu, Step


@dataclass(frozen=True)
class Box:
    """Everything within `radius` of `centre` in each entry; both (N, 1, ...) float64."""

    centre: Tensor
    radius: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> Box:
        return cls((low + high) / 2, (high - low) / 2)

    @property
    def low(self) -> Tensor:
        return self.centre - self.radius

    @property
    def high(self) -> Tensor:
        return self.centre + self.radius

    @property
    def finite(self) -> Tensor:
        """(N,) bool."""
        return (self.centre.flatten(1).isfinite() & self.radius.flatten(1).isfinite()).all(1)

    def lowest(self, rows: Tensor) -> Tensor:
        """(N, S) smallest value of <row, z> over z in the box, for rows (N, S, 1, ...)."""
        centre, radius = self.centre.flatten(1), self.radius.flatten(1)
        flat = rows.flatten(2)
        return torch.einsum("nsd,nd->ns", flat, centre) - torch.einsum("nsd,nd->ns", flat.abs(), radius)


def clip_box(x: Tensor, eps: float) -> Box:
    """The clips within eps of x (N, C, T, H, W) in every pixel and within [0, 1]."""
    clips = x.double().unsqueeze(1)
    return Box.between((clips - eps).clamp(0, 1), (clips + eps).clamp(0, 1))


def intervals(network: Network, clips: Box) -> list[Box]:
    """A box for each value of the network, the clips' own first: no clip in `clips` makes it leave it."""
    boxes = [clips]
    for step in network.steps:
        given = [boxes[place] for place in step.inputs]
        if isinstance(step, Affine):
            centre = torch.vmap(step.apply)(*(box.centre for box in given))
            boxes.append(Box(centre, torch.vmap(step.absolute)(*(box.radius for box in given)).expand_as(centre)))
        else:
            ends = (torch.vmap(step.apply)(*(getattr(box, end) for box in given)) for end in ("low", "high"))
            boxes.append(Box.between(*ends))
    return boxes


def lower_bounds(network: Network, boxes: list[Box], rows: Tensor, linear: bool = True) -> Tensor:
    """(N, S) proven lower bounds of <row, scores> over the clips of boxes[0].

    The rows are carried back from the scores towards the clip, and what they are worth at least is read off the boxes
    at every non-linear step on the way: at the first, that is the bound by intervals, at the clip CROWN-IBP. A bound
    may be loose where a later one is tight and the other way round; the best is kept.

    Args:
        boxes: of `intervals`. rows: (N, S, K). linear: go on behind the first non-linear step; False: intervals only.
    """
    if isinstance(network.output, Tensor):
        return torch.einsum("nsk,k->ns", rows, network.output.flatten())
    # Of each value that the scores still depend on, the coefficients (N, S, 1, ...).
    carried = {network.output: rows.unsqueeze(2)}
    constant = rows.new_zeros(rows.shape[:2])
    best = torch.full_like(constant, -torch.inf)
    # Comparisons with NaN are false, which would pass for a unit that never opens.
    known = torch.stack([box.finite for box in boxes]).all(0).unsqueeze(1)

    def read() -> Tensor:
        worth = constant + sum(boxes[place].lowest(each) for place, each in carried.items())
        return torch.fmax(best, worth.where(known, -torch.inf))

    for place in range(len(network.steps), 0, -1):
        if place not in carried:
            continue
        step = network.steps[place - 1]
        if not isinstance(step, Affine):
            best = read()
            if not linear:
                return best
        row = carried.pop(place)
        if isinstance(step, Affine):
            offset, shares = _through_affine(step, row)
        elif isinstance(step, Relu):
            offset, shares = _through_relu(boxes[step.inputs[0]], row)
        else:
            assert isinstance(step, Monotone)  # noqa: S101
            # No line under it: what its own box says.
            offset, shares = boxes[place].lowest(row), ()
        constant = constant + offset
        for source, share in zip(step.inputs, shares, strict=False):
            carried[source] = carried[source] + share if source in carried else share
    return read()


def _through_affine(step: Step, row: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    assert isinstance(step, Affine)  # noqa: S101
    n, s = row.shape[:2]
    shares = torch.vmap(step.adjoint)(row.flatten(0, 1))
    offset = torch.einsum("nsd,d->ns", row.flatten(2), step.offset.flatten())
    return offset, tuple(share.unflatten(0, (n, s)) for share in shares)


def _through_relu(box: Box, row: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A line under the ReLU where a coefficient is positive, the chord over it where it is negative."""
    low, high = box.low, box.high
    crossing = (low < 0) & (high > 0)
    chord = torch.where(crossing, high / (high - low).clamp_min(1e-300), (low >= 0).double())
    under = torch.where(crossing, (high > -low).double(), chord)
    lift = torch.where(crossing, -low * chord, 0.0)
    negative = row.clamp(max=0)
    offset = torch.einsum("nsd,nd->ns", negative.flatten(2), lift.flatten(1))
    return offset, (row.clamp(min=0) * under.unsqueeze(1) + negative * chord.unsqueeze(1),)
