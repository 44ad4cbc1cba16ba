"""What a step trains: a mixture, one part of it at a time, beside the copy of it that attacks see."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from models import Folded, VideoMoE


class Trainee:
    """A model in training. `folded` gives the copy that is attacked in its place."""

    def __init__(self, model: VideoMoE) -> None:
        self.model, self.folded = model, Folded(model)

    @contextmanager
    def only(self, part: str) -> Iterator[None]:
        """Inside, only the weights of one part take gradients: "moe" (all), "router" or "experts"."""
        parts: dict[str, nn.Module] = {"moe": self.model, "router": self.model.router, "experts": self.model.experts}
        self.model.requires_grad_(False)
        parts[part].requires_grad_(True)
        try:
            yield
        finally:
            self.model.requires_grad_(True)
