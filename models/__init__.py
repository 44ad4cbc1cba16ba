"""Networks: video experts, a light router, the sparse mixture over them, and their pickle-free checkpoints."""

from models.build import ExpertSpec, ModelSpec, RouterSpec, build_model
from models.checkpoint import load_twin, save_twin
from models.experts import EXPERTS, build_expert, find_expert
from models.folded import Folded
from models.moe import Outputs, VideoMoE
from models.paths import PATHS

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
    "save_twin",
]
