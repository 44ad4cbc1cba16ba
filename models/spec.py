"""What a model is made of, as plain values: what twin.json holds. Loads no torch, so that a command can list kinds."""

from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from hardroute.runtime.errors import MethodError

Kind = Literal["r3d18", "r2plus1d18", "tsm", "slowfast"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MAX_GAIN: Final = 1e6  # of a router's scores
Width = Field(default=64, ge=1, le=512)
Blocks = Annotated[int, Field(ge=0, le=50)]


class ExpertSpec(BaseModel):
    """One expert: its kind (one of KINDS), width and residual blocks per stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str = "r3d18"
    width: int = Width
    blocks: tuple[Blocks, Blocks, Blocks, Blocks] = (2, 2, 2, 2)


class RouterSpec(BaseModel):
    """The router and its logits' scale; `constant` belongs to a single network, a mixture of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["conv", "constant"] = "conv"
    width: int = Field(default=8, ge=1, le=512)
    gain: float = Field(default=1.0, gt=0, le=MAX_GAIN, allow_inf_nan=False)


class ModelSpec(BaseModel):
    """A whole model: K classes, a router, M experts; `restore`: width of a restoration network before them, or None."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    classes: int = Field(ge=2, le=100_000)
    router: RouterSpec = RouterSpec()
    experts: tuple[ExpertSpec, ...] = Field(min_length=1, max_length=64)
    restore: int | None = Field(default=None, ge=1, le=512)


def require_kind(kind: str) -> Kind:
    """The kind of that name. Raises MethodError, naming the known ones."""
    for known in KINDS:
        if kind == known:
            return known
    raise MethodError(f"unknown expert '{kind}': choose one of {', '.join(sorted(KINDS))}")
