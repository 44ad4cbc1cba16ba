"""Proven routes: how far ahead the clean route stays, whatever a perturbation within eps does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hardroute.audit.attacks import frozen, validate_clips
from hardroute.audit.proof.bounds import clip_box, intervals, lower_bounds
from hardroute.audit.proof.network import ProofError, trace
from hardroute.models import VideoMoE

# Of a clip's largest score: what float32 may add to or take from each score, where nothing else is said.
# The shipped router's differ by 4e-7.
ROUNDING = 4e-6
# A float32 perturbation of eps may end that far outside the box, by its last rounding, and counts.
LAST_BIT = 2.0**-24
# Numbers in the rows carried back from one value for all clips at once. 8 MB stay near the processor: at 128 MB
# intervals took 1.8 times as long.
AT_ONCE = 2**20


@dataclass(frozen=True)
class RouteProof:
    """What is proven of N clips at one eps.

    Attributes:
        route: (N,) the expert that the clean clip is sent to.
        leads: (N, M) float64: what the route's score is at least ahead of each expert's, anywhere in the box; infinite
            over itself, minus infinity where a bound is not finite.
    """

    route: Tensor
    leads: Tensor

    @property
    def lead(self) -> Tensor:
        """(N,) over every other expert; infinite for a model of one."""
        return self.leads.amin(1)

    @property
    def proven(self) -> Tensor:
        """(N,) bool: no perturbation in the box moves the route."""
        return self.lead > 0

    @property
    def excluded(self) -> Tensor:
        """(N, M) bool: experts that no perturbation in the box reaches."""
        return (self.leads > 0).scatter(1, self.route.unsqueeze(1), False)


class RouteProver:
    """A model's router, traced once for clips of one shape, to prove routes of at several eps.

    Args:
        model: its router is made of affine layers (convolutions, linear, batch norm, average pooling, means, shapes),
            ReLU and monotone functions such as max pooling.
        clip: any clip (C, T, H, W), for its shape.

    Raises:
        ProofError: the router has a layer for which no bound is known; the message names it.
    """

    def __init__(self, model: VideoMoE, clip: Tensor) -> None:
        self.model, self.network = model, trace(model.router, clip)

    def __call__(self, x: Tensor, eps: float, tolerance: float | None = None, linear: bool = True) -> RouteProof:
        """See `prove_routes`."""
        validate_clips(x, eps=eps)
        if tolerance is not None and not 0 <= tolerance < torch.inf:
            raise ProofError(f"tolerance is an error of a score, a number from 0; got {tolerance}")
        with torch.inference_mode(False), torch.no_grad():
            parts = [self._some(some, eps, tolerance, linear) for some in x.clone().split(self._at_once())]
        return RouteProof(torch.cat([route for route, _ in parts]), torch.cat([leads for _, leads in parts]))

    def _at_once(self) -> int:
        widest = max((zeros.numel() for step in self.network.steps for zeros in step.like), default=1)
        return max(1, AT_ONCE // (widest * max(1, len(self.model.experts) - 1)))

    def _some(self, x: Tensor, eps: float, tolerance: float | None, linear: bool) -> tuple[Tensor, Tensor]:
        with frozen(self.model):
            scores = self.model.router(x)
        exact, route = self.network(x), scores.argmax(1)
        error = ROUNDING * exact.abs().amax(1, keepdim=True) if tolerance is None else exact.new_tensor(tolerance)
        self._agree(scores, exact, error)
        n, experts = scores.shape
        own = torch.nn.functional.one_hot(route, experts).double()
        # One row for each other expert, the route's own left out.
        others = torch.arange(experts, device=x.device).expand(n, -1)[own == 0].view(n, experts - 1)
        rows = own.unsqueeze(1) - torch.nn.functional.one_hot(others, experts).double()
        boxes = intervals(self.network, clip_box(x, eps + LAST_BIT if eps else 0.0))
        bounds = lower_bounds(self.network, boxes, rows, linear) - 2 * error
        return route.cpu(), torch.full_like(own, torch.inf).scatter(1, others, bounds).cpu()

    def _agree(self, scores: Tensor, exact: Tensor, error: Tensor) -> None:
        """Raises ProofError unless the router's own scores are those of the steps that are bounded."""
        difference = (scores.double() - exact).abs()
        wrong = ~(difference <= error)
        if bool(wrong.any()):
            raise ProofError(
                f"router {type(self.model.router).__name__}: its scores differ by {float(difference.max()):.3g} from "
                f"those of its layers in float64, more than the tolerance {float(error.max()):.3g}; give a larger one"
            )


def prove_routes(model: VideoMoE, x: Tensor, eps: float, tolerance: float | None = None, linear: bool = True) -> Tensor:
    """Proven lower bound of the clean route's lead over every other expert, in router logits.

    Above 0: no perturbation of at most eps in every pixel, within [0, 1], makes the router choose another expert.
    Bounds by intervals and by CROWN-IBP, for each clip and rival the better of the two; the arithmetic is float64.

    Args:
        model: see `RouteProver`, which spares tracing the router for each eps anew.
        x: (N, C, T, H, W) float32 clips in [0, 1]. eps: L-infinity radius in raw pixels.
        tolerance: largest error of a router score, in logits, in the arithmetic that serves the model, such as the
            bundle's `tolerance`. A lead is lowered by twice as much. None: 4e-6 of the clip's largest score, which
            float32 keeps to unless a router cancels large numbers.
        linear: False for intervals only: looser, and several times as fast.

    Returns:
        (N,) float64 on the CPU; infinite for a model of one expert, minus infinity where a bound is not finite.

    Raises:
        ProofError: the router has a layer for which no bound is known, named, or its own scores differ by more than the
            tolerance from those computed here. MethodError: x or eps make no sense.

    Example:
        >>> (prove_routes(model, clips, eps=2 / 255) > 0).float().mean()  # share of routes proven
    """
    return _proof(model, x, eps, tolerance, linear).lead


def excluded(model: VideoMoE, x: Tensor, eps: float, tolerance: float | None = None, linear: bool = True) -> Tensor:
    """(N, M) bool: experts that no perturbation within eps makes the router choose; arguments as of `prove_routes`."""
    return _proof(model, x, eps, tolerance, linear).excluded


def _proof(model: VideoMoE, x: Tensor, eps: float, tolerance: float | None, linear: bool) -> RouteProof:
    validate_clips(x, eps=eps)
    return RouteProver(model, x[0])(x, eps, tolerance, linear)
