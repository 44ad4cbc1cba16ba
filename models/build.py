"""A model from a description: what twin.json holds and what training starts from."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hardroute.models.experts import build_expert
from hardroute.models.moe import VideoMoE
from hardroute.models.restoration import OverUnder, Restored
from hardroute.models.router import ConstantRouter, ConvRouter

MAX_GAIN = 1e6  # of a router's scores
Width = Field(default=64, ge=1, le=512)
Blocks = Annotated[int, Field(ge=0, le=50)]


class ExpertSpec(BaseModel):
    """One expert: its kind (a name in EXPERTS), width and residual blocks per stage."""

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


def build_model(spec: ModelSpec) -> VideoMoE:
    """A freshly initialised VideoMoE in training mode; seed torch's global generator before for a fixed one.

    Raises:
        MethodError: an expert kind that is not in EXPERTS.

    Example:
        >>> model = build_model(ModelSpec(classes=8, experts=(ExpertSpec(width=8),) * 4))
    """
    experts = [build_expert(e.kind, spec.classes, e.width, e.blocks) for e in spec.experts]
    router = (
        ConstantRouter()
        if spec.router.kind == "constant"
        else ConvRouter(len(experts), spec.router.width, spec.router.gain)
    )
    if spec.restore is None:
        return VideoMoE(router, experts)
    front = OverUnder(spec.restore)
    return VideoMoE(Restored(front, router), [Restored(front, expert) for expert in experts])
