"""Networks: video experts, a light router, the sparse mixture over them, and their pickle-free checkpoints."""

from hardroute.models.build import ExpertSpec, ModelSpec, RouterSpec, build_model
from hardroute.models.checkpoint import load_twin, parse_twin, save_twin
from hardroute.models.experts import EXPERTS, build_expert, find_expert
from hardroute.models.folded_batchnorm import Folded
from hardroute.models.gradient_paths import PATHS
from hardroute.models.moe import Outputs, VideoMoE

__all__ = [
    "EXPERTS",
    "PATHS",
    "ExpertSpec",
    "Folded",
    "ModelSpec",
    "Outputs",
    "RouterSpec",
    "VideoMoE",
    "build_expert",
    "build_model",
    "find_expert",
    "load_twin",
    "parse_twin",
    "save_twin",
]
