"""A bundle: the folder that training hands to runtime and audit, and what vouches for it."""

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.bundle.bundle import Bundle, write_manifest
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
from hardroute.runtime.bundle.manifest import Manifest
from hardroute.runtime.bundle.probes import Probes
from hardroute.runtime.bundle.sealed_files import CERTIFICATE
from hardroute.runtime.bundle.shipped import find_bundle

__all__ = [
    "CERTIFICATE",
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
    "RobustAccuracy",
    "definition_digest",
    "find_bundle",
    "write_manifest",
]
