"""Video experts by name. A new architecture is a new module here, a name in `Kind` and a row in EXPERTS."""

from collections.abc import Callable, Sequence

from torch import nn

from hardroute.models.experts.r2plus1d import r2plus1d18
from hardroute.models.experts.r3d import r3d18
from hardroute.models.experts.slowfast import slowfast
from hardroute.models.experts.tsm import tsm
from hardroute.models.spec import Kind, require_kind

EXPERTS: dict[Kind, Callable[..., nn.Module]] = {
    "r3d18": r3d18,
    "r2plus1d18": r2plus1d18,
    "tsm": tsm,
    "slowfast": slowfast,
}


def find_expert(kind: str) -> Callable[..., nn.Module]:
    """The row of that name. Raises MethodError, naming the known ones."""
    return EXPERTS[require_kind(kind)]


def build_expert(kind: str, classes: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """A fresh expert, (N, 3, T, H, W) in [0, 1] -> (N, classes) logits.

    Raises:
        MethodError: `kind` is not in EXPERTS.

    Example:
        >>> expert = build_expert("r3d18", classes=10, width=16)
    """
    return find_expert(kind)(classes=classes, width=width, blocks=blocks)
