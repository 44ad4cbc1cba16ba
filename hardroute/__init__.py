"""Harden, audit and serve routed video classifiers.

Names load on first use: `from hardroute import Engine` needs no PyTorch, `from hardroute import evaluate` loads it.

>>> from hardroute import Engine
>>> engine = Engine.load("motion")  # doctest: +SKIP
>>> engine.predict("clip.mp4").route.expert  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any, Final

# Read when torch loads. By default its threads spin while they wait for one another; on cores shared with other work
# a training step took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A library is silent unless its user configures logging: docs/logging.md.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.2.0"

if TYPE_CHECKING:
    from hardroute.audit.attacks import ATTACKS, SUITES
    from hardroute.audit.bundles import load_twin
    from hardroute.audit.evaluation import Evaluation, evaluate
    from hardroute.audit.policy import Policy
    from hardroute.audit.proof import prove_routes
    from hardroute.models import VideoMoE
    from hardroute.runtime.bundle import Bundle, Manifest, Trust
    from hardroute.runtime.clips import ClipContract, DecodedClip, Limits, decode, decode_clips, to_network
    from hardroute.runtime.datasets import load_clips, open_set
    from hardroute.runtime.errors import HardrouteError
    from hardroute.runtime.inference import Engine, MicroBatcher, Prediction, Route, VideoPrediction
    from hardroute.runtime.routelog import EventRecord, RouteLog, RouteRecord
    from hardroute.runtime.service import Service, ServiceSettings
    from hardroute.runtime.streams import Hub, Stream, StreamEvent, StreamSettings
    from hardroute.runtime.watch import Abstain, Alarm, Watch
    from hardroute.training.methods import METHODS

# Public name -> the package whose face has it.
_HOMES: Final = {
    name: f"{__name__}.{home}"
    for home, names in {
        "audit.attacks": ("ATTACKS", "SUITES"),
        "audit.evaluation": ("Evaluation", "evaluate"),
        "audit.policy": ("Policy",),
        "audit.proof": ("prove_routes",),
        "audit.bundles": ("load_twin",),
        "models": ("VideoMoE",),
        "runtime.bundle": ("Bundle", "Manifest", "Trust"),
        "runtime.clips": ("ClipContract", "DecodedClip", "Limits", "decode", "decode_clips", "to_network"),
        "runtime.datasets": ("load_clips", "open_set"),
        "runtime.errors": ("HardrouteError",),
        "runtime.inference": ("Engine", "MicroBatcher", "Prediction", "Route", "VideoPrediction"),
        "runtime.routelog": ("EventRecord", "RouteLog", "RouteRecord"),
        "runtime.service": ("Service", "ServiceSettings"),
        "runtime.streams": ("Hub", "Stream", "StreamEvent", "StreamSettings"),
        "runtime.watch": ("Abstain", "Alarm", "Watch"),
        "training.methods": ("METHODS",),
    }.items()
    for name in names
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
