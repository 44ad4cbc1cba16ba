"""The sparse video Mixture-of-Experts: a router sends each clip to one expert, and only that expert runs."""

from functools import cached_property

import torch
from torch import Tensor, nn

from hardroute.models.gradient_paths import PATHS
from hardroute.runtime.errors import MethodError


class VideoMoE(nn.Module):
    """Top-1 mixture over any modules.

    Args:
        router: (N, C, T, H, W) -> (N, M) router logits.
        experts: M modules, each (N, C, T, H, W) -> (N, K) class logits.

    Clips are in [0, 1]; normalisation belongs to the modules. `model(x)` is what is deployed: the logits (N, K) of
    the expert that the router scores highest, unscaled.

    Example:
        >>> model = VideoMoE(router, [build_expert("r3d18", classes=10, width=16) for _ in range(4)])
        >>> model(clips).argmax(1)
    """

    def __init__(self, router: nn.Module, experts: list[nn.Module] | nn.ModuleList) -> None:
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x).deployed

    def outputs(self, x: Tensor, path: str = "hard") -> "Outputs":
        """Everything the model computes on `x`, through the gradient path `path` (hardroute.models.gradient_paths)."""
        if path not in PATHS:
            raise MethodError(f"unknown gradient path '{path}': choose one of {', '.join(PATHS)}")
        return Outputs(self, x, path)

    def dispatch(self, x: Tensor, index: Tensor) -> Tensor:
        """Logits (N, K) of expert `index[n]` on clip n; an expert without clips does not run."""
        order, parts = [], []
        for j, expert in enumerate(self.experts):
            chosen = (index == j).nonzero().flatten()
            if len(chosen) == len(x):
                return expert(x)
            if len(chosen):
                order.append(chosen)
                parts.append(expert(x[chosen]))
        return torch.cat(parts)[torch.cat(order).argsort()]

    def every_expert(self, x: Tensor) -> Tensor:
        """Logits (N, M, K) of all experts on all clips."""
        return torch.stack([expert(x) for expert in self.experts], dim=1)


class Outputs:
    """The outputs on one batch of clips; each is computed when first asked for, and once.

    Attributes:
        router: (N, M) router logits.
        route: (N,) the expert with the highest router logit.
        logits: (N, K) class logits of the gradient path.
        deployed: (N, K) class logits as deployed, the chosen expert's own.
    """

    def __init__(self, model: VideoMoE, x: Tensor, path: str) -> None:
        self._model, self._x, self._path = model, x, PATHS[path]
        self._seen: tuple[Tensor, Tensor] | None = None  # an index that `expert` was asked for, and its logits

    @cached_property
    def router(self) -> Tensor:
        return self._model.router(self._x)

    @cached_property
    def route(self) -> Tensor:
        return self.router.argmax(1)

    @cached_property
    def gate(self) -> Tensor:
        """(N, M) the path's weights over the experts."""
        return self._path.weights(self.router, self.route)

    @cached_property
    def _every(self) -> Tensor:
        return self._model.every_expert(self._x)

    @cached_property
    def deployed(self) -> Tensor:
        return _of(self._every, self.route) if self._path.dense else self.expert(self.route)

    @cached_property
    def logits(self) -> Tensor:
        if self._path.dense:
            return (self.gate.unsqueeze(2) * self._every).sum(1)
        return self.gate.gather(1, self.route.unsqueeze(1)) * self.deployed

    def expert(self, index: Tensor) -> Tensor:
        """(N, K) class logits of expert `index[n]` on clip n, chosen or not; what is known of them is used again."""
        every = vars(self).get("_every")
        if every is not None and _usable(every):
            return _of(every, index)
        if self._seen is None or not _usable(self._seen[1]):
            logits = self._model.dispatch(self._x, index)
        else:
            seen, logits = self._seen
            new = (seen != index).nonzero().flatten()
            if len(new) == len(index):
                logits = self._model.dispatch(self._x, index)
            elif len(new):
                logits = logits.index_copy(0, new, self._model.dispatch(self._x[new], index[new]))
        self._seen = index, logits
        return logits


def _of(every: Tensor, index: Tensor) -> Tensor:
    """(N, K) row `index[n]` of clip n, out of (N, M, K)."""
    return every[torch.arange(len(index), device=index.device), index]


def _usable(logits: Tensor) -> bool:
    """Whether logits of an earlier pass will do now: those computed without a graph have no gradient to give."""
    return logits.requires_grad or not torch.is_grad_enabled()
