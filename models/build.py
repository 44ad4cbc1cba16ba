"""A model from its description."""

from hardroute.models.experts import build_expert
from hardroute.models.moe import VideoMoE
from hardroute.models.restoration import OverUnder, Restored
from hardroute.models.router import ConstantRouter, ConvRouter
from hardroute.models.spec import ExpertSpec, ModelSpec, RouterSpec

__all__ = ["ExpertSpec", "ModelSpec", "RouterSpec", "build_model"]


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
