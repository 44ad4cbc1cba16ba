"""A bundle: the folder that training hands to runtime and audit, and what vouches for it."""

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.bundle.bundle import Bundle, write_manifest
from hardroute.runtime.bundle.certificate import SCHEMA_VERSION as CERTIFICATE_VERSION
from hardroute.runtime.bundle.certificate import Certificate
from hardroute.runtime.bundle.manifest import Manifest
from hardroute.runtime.bundle.probes import Probes
from hardroute.runtime.bundle.sealed_files import CERTIFICATE, seal_name, write_sealed

__all__ = [
    "CERTIFICATE",
    "CERTIFICATE_VERSION",
    "Baseline",
    "Bundle",
    "Certificate",
    "Manifest",
    "Probes",
    "seal_name",
    "write_manifest",
    "write_sealed",
]
