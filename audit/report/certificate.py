"""What a passed audit vouches for, taken out of its report, and put into the bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from hardroute.audit.report.content import Report
from hardroute.runtime.bundle import (
    CERTIFICATE,
    Accuracy,
    Bundle,
    Certificate,
    CertifiedBundle,
    CertifiedCheck,
    CertifiedData,
    CertifiedPolicy,
    CertifiedSource,
    RobustAccuracy,
)
from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import printable

NAME: Final = CERTIFICATE


def certificate(report: Report, report_text: str) -> Certificate | None:
    """The certificate for a report as written in `report_text`; None where there is nothing to certify.

    An audit that was refused, that looked at fewer clips than its policy asks for, or whose attacks saw the model in
    other arithmetic than its own, certifies nothing. Nor does a report that lacks what a certificate says.
    """
    data, baseline = report.data, report.baseline
    in_full = data.limit is None and report.attack_precision == "fp32"
    if not report.verdict.passed or not in_full or data.digest is None or baseline is None:
        return None
    gate = report.policy.content.attacks.gate_eps
    return Certificate(
        created=report.created,
        bundle=CertifiedBundle(name=report.bundle.name, digest=report.bundle.digest),
        policy=CertifiedPolicy.model_validate(report.policy.model_dump(mode="json")),
        # A folder's name may hold what no terminal should see; that must not cost an audit its certificate.
        data=CertifiedData(
            name=printable(data.name), split=data.split, clips=data.clips, limit=data.limit, digest=data.digest
        ),
        threat_model=report.threat_model,
        attacks=tuple(attack.name for attack in report.attacks),
        sources=report.transfer
        and {
            name: CertifiedSource(digest=source.digest, undefended=source.undefended)
            for name, source in report.transfer.models.items()
        },
        clean_accuracy=Accuracy.model_validate(report.clean.both.model_dump()),
        robust_accuracy=tuple(
            RobustAccuracy(eps_255=at.eps_255, decides=at.eps_255 == gate, **at.worst_case.model_dump())
            for at in report.eps
        ),
        baseline=baseline,
        checks=tuple(CertifiedCheck.model_validate(check.model_dump()) for check in report.verdict.checks),
        versions=report.versions,
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
