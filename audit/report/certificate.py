"""What a passed audit vouches for, taken out of its report, and put into the bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from hardroute.runtime.bundle import (
    CERTIFICATE,
    Accuracy,
    Baseline,
    Bundle,
    Certificate,
    CertifiedBundle,
    CertifiedCheck,
    CertifiedData,
    CertifiedPolicy,
    CertifiedSource,
    RobustAccuracy,
)
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import printable

NAME: Final = CERTIFICATE


def certificate(report: dict[str, Any], report_text: str) -> Certificate | None:
    """The certificate for a report as written in `report_text`; None where there is nothing to certify.

    An audit that was refused, that looked at fewer clips than its policy asks for, or whose attacks saw the model in
    other arithmetic than its own, certifies nothing.
    """
    if not report["verdict"]["passed"] or report["data"]["limit"] is not None or report["attack_precision"] != "fp32":
        return None
    gate = report["policy"]["content"]["attacks"]["gate_eps"]
    bundle, data, transfer = report["bundle"], report["data"], report["transfer"]
    return Certificate(
        created=report["created"],
        bundle=CertifiedBundle(name=bundle["name"], digest=bundle["digest"]),
        policy=CertifiedPolicy.model_validate(report["policy"]),
        # A folder's name may hold what no terminal should see; that must not cost an audit its certificate.
        data=CertifiedData.model_validate({**data, "name": printable(data["name"])}),
        threat_model=report["threat_model"],
        attacks=tuple(attack["name"] for attack in report["attacks"]),
        sources=transfer
        and {name: CertifiedSource.model_validate(source) for name, source in transfer["models"].items()},
        clean_accuracy=Accuracy.model_validate(report["clean"]["both"]),
        robust_accuracy=tuple(
            RobustAccuracy(eps_255=at["eps_255"], decides=at["eps_255"] == gate, **at["worst_case"])
            for at in report["eps"]
        ),
        baseline=Baseline.model_validate(report["baseline"], strict=False),  # a report's tuples are lists
        checks=tuple(map(CertifiedCheck.model_validate, report["verdict"]["checks"])),
        versions=report["versions"],
        report_sha256=hashlib.sha256(report_text.encode()).hexdigest(),
    )


def attach(bundle: Bundle, certificate: Path) -> Path | None:
    """Copies a certificate into its bundle and says where; without one, lets the bundle's old one go.

    Raises BundleError, with the bundle as it was, if that has another manifest by now or cannot be written.
    """
    if not certificate.exists():
        bundle.detach()
        return None
    try:
        data = certificate.read_bytes()
    except OSError as error:
        raise BundleError(f"{certificate}: cannot be read ({error.strerror}); audit the bundle again") from None
    return bundle.attach(data)


def data_digest(clips: ClipArrays) -> str:
    """SHA-256 over a line "<digest of the file's bytes> <class>" per clip, in the report's order."""
    lines = [f"{sha256} {clips.classes[label]}\n" for sha256, label in zip(clips.sha256, clips.labels, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
