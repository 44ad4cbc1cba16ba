"""What a step trains: a mixture, one part of it at a time, beside the copy of it that attacks see."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardroute.models import Folded, VideoMoE


class Trainee:
    """A model in training. `folded` gives the copy that is attacked in its place."""

    def __init__(self, model: VideoMoE) -> None:
        self.model, self.folded = model, Folded(model)

    def train(self, keep_norm: bool = False) -> None:
        """Training mode. `keep_norm`: experts normalise by the statistics they have gathered, and gather no more."""
        self.model.train()
        for module in self.model.experts.modules() if keep_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()

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
