"""certificate.json: what a passed audit vouches for, in few words and bound to it by digests."""

from __future__ import annotations

import hashlib
from typing import Any

from runtime.clips import ClipArrays

NAME = "certificate.json"
SCHEMA_VERSION = 1


def certificate(report: dict[str, Any], report_text: str) -> dict[str, Any] | None:
    """The certificate for a report as written in `report_text`; None where there is nothing to certify.

    An audit that was refused, or that looked at fewer clips than its policy asks for, certifies nothing. The
    certificate lies beside the report, not in the bundle, whose digest it names.
    """
    if not report["verdict"]["passed"] or report["data"]["limit"] is not None:
        return None
    gate = report["policy"]["content"]["attacks"]["gate_eps"]
    return {
        "schema_version": SCHEMA_VERSION,
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
        "checks": report["verdict"]["checks"],
        "versions": report["versions"],
        "report_sha256": hashlib.sha256(report_text.encode()).hexdigest(),
    }


def data_digest(clips: ClipArrays) -> str:
    """SHA-256 over a line "<digest of the file's bytes> <class>" per clip, in the report's order."""
    lines = [f"{sha256} {clips.classes[label]}\n" for sha256, label in zip(clips.sha256, clips.labels, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
