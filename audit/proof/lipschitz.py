"""Upper bounds of how fast a network's scores can change anywhere, and how far a mixture jumps where routes meet.

Between two clips of one route a mixture changes no faster than that route's expert. Across a boundary of routes no such
bound exists: there the answer jumps from one expert's to another's. So both are stated: a bound for each part, and the
largest jump seen.

The bound of a network is a product of its layers' norms, each a proven upper bound. It holds for every clip at once,
and for no clip closely: measured slopes lie far below it, those of deep experts by orders of magnitude (docs/proof.md).
It lets one compare two networks of one architecture; it does not certify a radius.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import torch
from torch import Tensor, nn

from hardroute.audit.attacks import frozen, validate_clips
from hardroute.audit.proof.network import Network, trace
from hardroute.audit.proof.operators import Affine, Function, Monotone, Step
from hardroute.models import VideoMoE

# Largest layer, as inputs times outputs and as the smaller of them, whose norm is computed outright, in float64.
LARGEST_MATRIX, LARGEST_SIDE = 2**22, 512
# Of the iteration that bounds the others, at most; it ends where a round gains less than this share.
ROUNDS, GAIN = 30, 0.01
# What float64 may have rounded off, as a share.
SLACK = 1e-9


def lipschitz_bound(network: nn.Module, clip: Tensor, part: str = "network") -> float:
    """L with ||f(x) - f(z)||_2 <= L ||x - z||_2 for all clips x and z; f: the scores, norms over all entries.

    A perturbation of at most eps in each of D pixel values is at most eps sqrt(D) long.

    Args:
        network: made of the layers that routes are proven through (see `RouteProver`); left as it was.
        clip: any clip (C, T, H, W), for its shape. part: what messages call the network.

    Raises:
        ProofError: a layer is none of these; the message names it.
    """
    traced = trace(network, clip, part)
    if isinstance(traced.output, Tensor):
        return 0.0
    traced = fused(traced)
    # Of each value, how fast it can change with the clip.
    slopes = [1.0]
    for step in traced.steps:
        slopes.append(_slope(step, [slopes[place] for place in step.inputs]))
    assert isinstance(traced.output, int)  # noqa: S101
    return slopes[traced.output] * (1 + SLACK)


def jumps(model: VideoMoE, x: Tensor, batch_size: int = 32) -> Tensor:
    """(N,) float64: the largest ||E_i(x) - E_j(x)||_2 over pairs of experts, for clips x (N, C, T, H, W) in [0, 1].

    As far as the answer to a clip can jump where a perturbation, however small, moves its route. Seen at these clips,
    not a bound for others.
    """
    validate_clips(x)
    pairs = list(combinations(range(len(model.experts)), 2))
    if not pairs:
        return torch.zeros(len(x), dtype=torch.float64)
    with torch.no_grad(), frozen(model):
        answers = [model.every_expert(some).double().cpu() for some in x.split(batch_size)]
    every = torch.cat(answers)
    return torch.stack([(every[:, i] - every[:, j]).norm(dim=1) for i, j in pairs]).amax(0)


def spectral_bound(step: Affine) -> float:
    """At least ||A||_2 of an affine step of one input.

    Of a small matrix the norm itself. Of others that of |A|, which is no smaller: for a matrix B = |A|^T |A| without
    negative entries and any v > 0, no eigenvalue of B exceeds the largest (B v)_i / v_i (Collatz and Wielandt). Power
    iteration of A itself would come from below, and is no bound.
    """
    (zeros,) = step.like
    result = step.offset
    if not zeros.numel() * result.numel():
        return 0.0
    if zeros.numel() * result.numel() <= LARGEST_MATRIX and min(zeros.numel(), result.numel()) <= LARGEST_SIDE:
        unit = torch.eye(result.numel(), dtype=result.dtype, device=result.device).view(-1, *result.shape)
        rows = torch.vmap(step.adjoint)(unit)[0].flatten(1)
        gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
        return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0).sqrt()) * (1 + SLACK)
    vector, best = torch.ones_like(zeros), torch.inf
    for _ in range(ROUNDS):
        (image,) = step.absolute_adjoint(step.absolute(vector).expand_as(result).contiguous())
        found = float((image / vector).amax())
        if found > best * (1 - GAIN):
            return min(found, best) ** 0.5 * (1 + SLACK)
        best = found
        # Above 0 also where no coefficient is.
        vector = image / image.amax().clamp_min(1e-300) + 1e-12
    return best**0.5 * (1 + SLACK)


def fused(network: Network) -> Network:
    """The same network with affine steps in a row as one: the norm of a product is at most the product of the norms."""
    assert isinstance(network.output, int)  # noqa: S101
    users = Counter(place for step in network.steps for place in step.inputs)
    steps: list[Step] = []
    moved = [0]  # where each value is now
    for step in network.steps:
        inputs = tuple(moved[place] for place in step.inputs)
        before = steps[inputs[0] - 1] if inputs[0] else None
        if (
            isinstance(step, Affine)
            and isinstance(before, Affine)
            and len(inputs) == 1
            and inputs[0] == len(steps)
            and users[step.inputs[0]] == 1
        ):
            steps[-1] = Affine(
                f"{before.layer}, {step.layer}",
                before.inputs,
                before.like,
                _after(before.apply, step.apply),
                _after(before.absolute, step.absolute),
            )
        elif isinstance(step, Affine):
            steps.append(Affine(step.layer, inputs, step.like, step.apply, step.absolute))
        elif isinstance(step, Monotone):
            steps.append(Monotone(step.layer, inputs, step.like, step.apply, step.steepness))
        else:
            steps.append(type(step)(step.layer, inputs, step.like, step.apply))
        moved.append(len(steps))
    return Network(tuple(steps), moved[network.output])


def _after(first: Function, second: Function) -> Function:
    return lambda *values: second(first(*values))


def _slope(step: Step, slopes: list[float]) -> float:
    """Of a step's result, by those of its inputs."""
    if not isinstance(step, Affine):
        steepness = step.steepness if isinstance(step, Monotone) else 1.0
        return steepness * sum(slope**2 for slope in slopes) ** 0.5
    # Of several values, such as the two sides of a residual, each alone while the others hold still.
    return sum(slope * spectral_bound(_alone(step, i)) for i, slope in enumerate(slopes))


def _alone(step: Affine, index: int) -> Affine:
    """The step as a function of its input number `index`, the others 0."""
    if len(step.inputs) == 1:
        return step

    def of(function: Function) -> Function:
        return lambda value: function(*step.like[:index], value, *step.like[index + 1 :])

    return Affine(step.layer, (step.inputs[index],), (step.like[index],), of(step.apply), of(step.absolute))
