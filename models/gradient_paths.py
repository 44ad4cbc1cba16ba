"""Gradient paths: how the output of a routed model is formed, and so where its gradient can flow.

All four give the deployed route; they differ in what an attacker (or a trainer) can differentiate:

- hard: the chosen expert's logits as deployed; no gradient through the router.
- switch: the chosen expert's logits times its gate weight (Fedus et al. 2022).
- straight-through: the deployed value forward, the soft mixture's gradient backward.
- soft: the mixture of all experts by their gate weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class Path:
    """Weights (N, M) over the experts' logits, from router logits and route; `dense` paths run every expert."""

    weights: Callable[[Tensor, Tensor], Tensor]
    dense: bool


def _chosen(router: Tensor, route: Tensor) -> Tensor:
    return one_hot(route, router.shape[1]).to(router.dtype)


def _switch(router: Tensor, route: Tensor) -> Tensor:
    return _chosen(router, route) * router.softmax(1)


def _straight_through(router: Tensor, route: Tensor) -> Tensor:
    gate = router.softmax(1)
    return _chosen(router, route) + gate - gate.detach()


def _soft(router: Tensor, route: Tensor) -> Tensor:
    return router.softmax(1)


PATHS: dict[str, Path] = {
    "hard": Path(_chosen, dense=False),
    "switch": Path(_switch, dense=False),
    "straight-through": Path(_straight_through, dense=True),
    "soft": Path(_soft, dense=True),
}
