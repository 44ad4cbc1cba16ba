"""Networks: video experts, a light router, the sparse mixture over them, and their pickle-free checkpoints.

Names load on first use: the specs need no torch, all else brings it.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hardroute.models.build import build_model
    from hardroute.models.checkpoint import load_twin, parse_twin, save_twin
    from hardroute.models.experts import EXPERTS, build_expert, find_expert
    from hardroute.models.folded_batchnorm import Folded
    from hardroute.models.gradient_paths import PATHS
    from hardroute.models.half_precision import LayerError, prove_gradients
    from hardroute.models.moe import Outputs, VideoMoE
    from hardroute.models.spec import KINDS, ExpertSpec, ModelSpec, RouterSpec

# Public name -> the module that has it.
_HOMES: Final = {
    name: f"{__name__}.{home}"
    for home, names in {
        "build": ("build_model",),
        "checkpoint": ("load_twin", "parse_twin", "save_twin"),
        "experts": ("EXPERTS", "build_expert", "find_expert"),
        "folded_batchnorm": ("Folded",),
        "gradient_paths": ("PATHS",),
        "half_precision": ("LayerError", "prove_gradients"),
        "moe": ("Outputs", "VideoMoE"),
        "spec": ("KINDS", "ExpertSpec", "ModelSpec", "RouterSpec"),
    }.items()
    for name in names
}

__all__ = [
    "EXPERTS",
    "KINDS",
    "PATHS",
    "ExpertSpec",
    "Folded",
    "LayerError",
    "ModelSpec",
    "Outputs",
    "RouterSpec",
    "VideoMoE",
    "build_expert",
    "build_model",
    "find_expert",
    "load_twin",
    "parse_twin",
    "prove_gradients",
    "save_twin",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
