"""certificate.json: what a passed audit vouches for, in few words and bound to it by digests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from hardroute.runtime.bundle import CERTIFICATE as NAME
from hardroute.runtime.bundle import CERTIFICATE_VERSION, Bundle, Certificate, seal_name, write_sealed
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import BundleError


def certificate(report: dict[str, Any], report_text: str) -> dict[str, Any] | None:
    """The certificate for a report as written in `report_text`; None where there is nothing to certify.

    An audit that was refused, that looked at fewer clips than its policy asks for, or whose attacks saw the model in
    other arithmetic than its own, certifies nothing.
    """
    if not report["verdict"]["passed"] or report["data"]["limit"] is not None or report["attack_precision"] != "fp32":
        return None
    gate = report["policy"]["content"]["attacks"]["gate_eps"]
    return {
        "schema_version": CERTIFICATE_VERSION,
        "created": report["created"],
        "bundle": {key: report["bundle"][key] for key in ("name", "digest")},
        "policy": report["policy"],
        "data": report["data"],
        "threat_model": report["threat_model"],
        "attacks": [attack["name"] for attack in report["attacks"]],
        "sources": report["transfer"] and report["transfer"]["models"],
        "clean_accuracy": report["clean"]["both"],
        "robust_accuracy": [
            {"eps_255": at["eps_255"], "decides": at["eps_255"] == gate, **at["worst_case"]} for at in report["eps"]
        ],
        "baseline": report["baseline"],
        "checks": report["verdict"]["checks"],
        "versions": report["versions"],
        "report_sha256": hashlib.sha256(report_text.encode()).hexdigest(),
    }


def attach(bundle: Bundle, certificate: Path) -> Path | None:
    """Copies a certificate into its bundle and says where; without one, lets the bundle's old one go.

    Raises BundleError, with the bundle as it was, if that has another manifest by now or cannot be written.
    """
    inside = bundle.root / NAME
    if not bundle.is_current():
        raise BundleError(f"bundle {bundle.root}: it was changed while it was audited; audit it again")
    try:
        if not certificate.exists():
            for path in (inside, bundle.root / seal_name(NAME)):
                path.unlink(missing_ok=True)
            return None
        data = certificate.read_bytes()
        # Nothing that the runtime would refuse may get in there.
        Certificate.parse(data, bundle.digest, bundle.manifest)
        write_sealed(bundle.root, NAME, data)
    except OSError as error:
        raise BundleError(f"bundle {bundle.root}: {NAME} cannot be put there ({error.strerror})") from None
    return inside


def data_digest(clips: ClipArrays) -> str:
    """SHA-256 over a line "<digest of the file's bytes> <class>" per clip, in the report's order."""
    lines = [f"{sha256} {clips.classes[label]}\n" for sha256, label in zip(clips.sha256, clips.labels, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
