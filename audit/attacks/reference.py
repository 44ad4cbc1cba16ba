"""What an attack knows of the clean clip: the label, the clean route, the weakest expert, the clean outputs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hardroute.audit.attacks.validation import validate_labels
from hardroute.models import Outputs, VideoMoE

# One part's logits out of all outputs: (outputs, reference) -> (N, M) or (N, K).
Head = Callable[[Outputs, "Reference"], Tensor]


@dataclass
class Reference:
    """The clean side of an attack on one batch; the clean forward pass is made only if an objective asks for it.

    Attributes:
        x: (N, C, T, H, W) clean clips. y: (N,) labels.
        path: gradient path that `outputs` takes, so that a Lipschitz term compares like with like.
        differentiable: keep the graph of the clean outputs (a defence trains through them; an attack does not).
        assigned: (N,) expert that a defence wants the clip routed to, in place of the router's own clean choice.
        aim: (N,) expert that an expert-wise term looks at; None for the expert that the clean clip is routed to.
        rank: which wrong class a targeted term aims at: 0 for the likeliest on the clean clip.
    """

    model: VideoMoE
    x: Tensor
    y: Tensor
    path: str
    aim: Tensor | None = None
    differentiable: bool = False
    assigned: Tensor | None = None
    rank: int = 0

    def __post_init__(self) -> None:
        self._clean: dict[Head, Tensor] = {}
        self._classes = 0  # that the labels have been compared with

    def part(self, index: Tensor) -> "Reference":
        """The same for some of the clips; of all: itself, not a copy."""
        if len(index) == len(self.x):
            return self
        aim, assigned = (None if t is None else t[index] for t in (self.aim, self.assigned))
        return replace(self, x=self.x[index], y=self.y[index], aim=aim, assigned=assigned)

    def of_classes(self, logits: Tensor) -> Tensor:
        """The class logits (N, K) themselves. Raises MethodError, before any is looked up, for a label beyond them."""
        if self._classes != logits.shape[1]:
            validate_labels(self.y, logits.shape[1])
            self._classes = logits.shape[1]
        return logits

    @cached_property
    def outputs(self) -> Outputs:
        return self.model.outputs(self.x, self.path)

    def clean(self, head: Head) -> Tensor:
        """The head's logits on the clean clips; computed once."""
        if head not in self._clean:
            with torch.set_grad_enabled(self.differentiable):
                self._clean[head] = head(self.outputs, self)
        return self._clean[head]

    @property
    def _router(self) -> Tensor:
        with torch.set_grad_enabled(self.differentiable):
            return self.outputs.router

    @property
    def route(self) -> Tensor:
        """(N,) y_R: the expert that the clean clip is routed to, or is to be routed to."""
        return self._router.argmax(1) if self.assigned is None else self.assigned

    @property
    def weakest(self) -> Tensor:
        """(N,) y_low: the expert with the lowest router logit on the clean clip."""
        return self._router.argmin(1)

    @property
    def target(self) -> Tensor:
        return self.route if self.aim is None else self.aim

    def rival(self, head: Head) -> Tensor:
        """(N,) the wrong class that stands at `rank` in the head's logits on the clean clip."""
        wrong = self.clean(head).scatter(1, self.y.unsqueeze(1), -torch.inf)
        return wrong.topk(self.rank + 1, dim=1).indices[:, -1]
