"""The folder of a report: JSON, page, adversarial clips and, where one is due, the certificate."""

from __future__ import annotations

import shutil
from pathlib import Path

from hardroute.audit.report import adversarial_clips
from hardroute.audit.report.certificate import NAME, certificate
from hardroute.audit.report.content import Report
from hardroute.audit.report.html import render
from hardroute.audit.result import Audit
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.files import write_together

REPORT = "report.json"
PAGE = "report.html"


def write(audit: Audit, out: str | Path, data: str, limit: int | None, seconds: float) -> tuple[Path, ...]:
    """Writes report.json, report.html, adversarial.npz and, where one is due, certificate.json into the folder `out`.

    None takes its place before all are written; a certificate of an earlier audit goes, and so do the results that the
    audit kept for the case that it is cut short.

    Args:
        data: what the set is called. limit: clips asked for, where that was fewer than the policy's.
        seconds: how long the audit took.

    Returns:
        What was written.

    Raises:
        HardrouteError: the folder cannot be written.
    """
    out = Path(out)
    report = Report.of(audit, data, limit, seconds)
    text, gate = report.to_json(), audit.policy.attacks.gate_eps / 255
    files = {
        REPORT: text.encode(),
        PAGE: render(report, audit.clips, audit.evaluation).encode(),
        adversarial_clips.NAME: adversarial_clips.archive(audit.clips, audit.evaluation, gate),
    }
    due = certificate(report, text)
    if due:
        files[NAME] = due.to_bytes()
    try:
        out.mkdir(parents=True, exist_ok=True)
        # First: at no moment does an old certificate lie beside a new report.
        (out / NAME).unlink(missing_ok=True)
        write_together(out, files)
    except OSError as error:
        raise HardrouteError(
            f"{out}: the report cannot be written ({error.strerror}); choose another folder for it"
        ) from None
    if audit.means.work is not None:
        # Last: killed before this, the audit still goes on from its results.
        shutil.rmtree(audit.means.work, ignore_errors=True)
    return tuple(out / name for name in files)
