"""A bundle: the folder that training hands to runtime and audit, and what vouches for it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.bundle.bundle import ENVELOPE, MODEL_SIGNATURE, Bundle, Vouched, write_manifest
from hardroute.runtime.bundle.certificate import (
    Accuracy,
    Certificate,
    CertifiedBundle,
    CertifiedCheck,
    CertifiedData,
    CertifiedPolicy,
    CertifiedSource,
    PolicyContent,
    RobustAccuracy,
    definition_digest,
)
from hardroute.runtime.bundle.manifest import Manifest, Twin
from hardroute.runtime.bundle.probes import Probes
from hardroute.runtime.bundle.sealed_files import CERTIFICATE
from hardroute.runtime.bundle.shipped import find_bundle
from hardroute.runtime.bundle.training_clips import TRAINING_CLIPS, TrainingClips

if TYPE_CHECKING:
    from hardroute.runtime.bundle.signature import PublicKey
    from hardroute.runtime.bundle.trust import Trust

__all__ = [
    "CERTIFICATE",
    "ENVELOPE",
    "MODEL_SIGNATURE",
    "TRAINING_CLIPS",
    "Accuracy",
    "Baseline",
    "Bundle",
    "Certificate",
    "CertifiedBundle",
    "CertifiedCheck",
    "CertifiedData",
    "CertifiedPolicy",
    "CertifiedSource",
    "Manifest",
    "PolicyContent",
    "Probes",
    "PublicKey",
    "RobustAccuracy",
    "TrainingClips",
    "Trust",
    "Twin",
    "Vouched",
    "definition_digest",
    "find_bundle",
    "write_manifest",
]

# They bring `cryptography`, which serving without a trust does without.
_LATE: Final = {"PublicKey": f"{__name__}.signature", "Trust": f"{__name__}.trust"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATE[name]), name)
    globals()[name] = value
    return value
