"""Serve a bundle: verify it, route each clip to one expert, and log the route. Needs no torch.

>>> from runtime import Engine
>>> engine = Engine.load("models/zoo/motion")  # doctest: +SKIP
>>> engine.predict("clip.mp4").route.expert  # doctest: +SKIP
"""

from runtime.bundle import Bundle, write_manifest
from runtime.clips import ClipContract, DecodedClip, Limits, decode, decode_clips
from runtime.engine import Engine
from runtime.errors import BackendError, BundleError, ClipError, EngineError, HardrouteError
from runtime.manifest import Manifest
from runtime.prediction import Prediction, Route, Timing
from runtime.probes import Probes
from runtime.routelog import RouteLog, RouteRecord
from runtime.video import VideoPrediction

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "ClipContract",
    "ClipError",
    "DecodedClip",
    "Engine",
    "EngineError",
    "HardrouteError",
    "Limits",
    "Manifest",
    "Prediction",
    "Probes",
    "Route",
    "RouteLog",
    "RouteRecord",
    "Timing",
    "VideoPrediction",
    "decode",
    "decode_clips",
    "write_manifest",
]
