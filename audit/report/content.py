"""The report: all that was measured and under which conditions, as JSON and as a self-contained page."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardroute.audit.evaluation.cost import per_clip, spent
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.replay import worst_case
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.evaluation.transfer import felled_by as felled_by_transferred
from hardroute.audit.report import adversarial_clips as kept
from hardroute.audit.report import figures
from hardroute.audit.report import paper_tables as tables
from hardroute.audit.report.certificate import NAME, certificate, data_digest
from hardroute.audit.report.html import render
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import HardrouteError

if TYPE_CHECKING:
    from hardroute.audit.certify import Audit

SCHEMA_VERSION = 1
THREAT_MODEL = {
    "norm": "L-inf per pixel and channel, on RGB in [0, 1] after decoding and resizing",
    "knowledge": "white box: weights, architecture and routing are known to the attacker",
    "goal": "untargeted: any wrong class",
    "verdict": "a fresh forward of the twin on the perturbed clip, and of the runtime on its 8-bit form",
    "headline": "a clip counts as right only if it is right unattacked, under every attack and in both",
}


def build(found: Audit, data: str, limit: int | None, seconds: float) -> dict[str, Any]:
    """The content of report.json (schema version 1): plain values, shares in [0, 1], eps in 1/255."""
    bundle, policy, evaluation, agreement = found.bundle, found.policy, found.evaluation, found.agreement
    sanity, verdict = found.sanity, found.verdict
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "verdict": {
            "passed": verdict.passed,
            "checks": [
                {**asdict(check), "measured": _finite(check.measured), "passed": check.passed}
                for check in verdict.checks
            ],
        },
        "bundle": {
            "name": bundle.manifest.name,
            "digest": bundle.digest,
            "classes": list(bundle.manifest.classes),
            "experts": [{"kind": e.kind, "width": e.width} for e in bundle.manifest.experts],
            "contract": bundle.manifest.contract.model_dump(mode="json"),
        },
        "data": {
            "name": data,
            "split": policy.data.split,
            "clips": len(evaluation),
            "limit": limit,
            "digest": data_digest(found.clips),
        },
        "thorough": evaluation.thorough,
        "attack_precision": found.means.precision,
        "device": found.means.device,
        "backend": found.means.backend,
        "policy": {"digest": policy.digest, "content": policy.model_dump(mode="json")},
        "threat_model": THREAT_MODEL,
        "attacks": [figures.attack_row(name, evaluation) for name in evaluation.attacks],
        "clean": {
            "audited": Proportion.of(evaluation.clean).as_dict(),
            "deployed": Proportion.of(agreement.clean_right).as_dict(),
            "both": Proportion.of(evaluation.clean & agreement.clean_right).as_dict(),
        },
        "eps": [figures.at(eps, evaluation, agreement) for eps in evaluation.eps],
        "router": {
            "experts": evaluation.experts,
            "clean": figures.load(evaluation.clean_route, evaluation.experts),
            "spread": _finite(found.subject.spread),
            "factor": found.subject.factor,
        },
        "tables": tables.build(evaluation, agreement, policy.attacks.gate_eps / 255, found.gflops),
        "gflops": found.gflops,
        "transfer": found.foreign
        and {
            **found.foreign.as_dict(),
            "attacks": [figures.attack_row(name, evaluation) for name in found.foreign.matrix.attacks],
        },
        "cost": {
            **spent(evaluation.costs, len(evaluation)),
            "transfer": found.foreign and per_clip(found.foreign.matrix.passes, len(evaluation)),
            "sanity": per_clip(sanity.passes, len(evaluation)),
        },
        "agreement": {
            "clean": Proportion.of(agreement.clean).as_dict(),
            "lowest": agreement.lowest().as_dict(),
        },
        "baseline": agreement.baseline.model_dump(mode="json"),
        "sanity": {
            "training": list(sanity.training),
            "repeat_difference": _finite(sanity.repeat_difference),
            "batch_difference": _finite(sanity.batch_difference),
            "dead_gradients": sanity.dead_gradients.as_dict(),
            "dead_router": sanity.dead_router.as_dict(),
            "saturated": sanity.saturated.as_dict(),
            "probabilities": sanity.probabilities,
            "still": sanity.still.as_dict(),
            "far": sanity.far.as_dict(),
            "clips": sanity.strength.clips,
            "comparisons": [{**asdict(each), "p": each.p} for each in sanity.strength.comparisons],
            "noise_only": sanity.strength.noise_only.as_dict(),
            "second_choice": [each.as_dict() for each in sanity.second],
            "chance": sanity.chance,
        },
        "clips": _clips(found),
        "versions": _versions(),
    }


def write(out: str | Path, report: dict[str, Any], clips: ClipArrays, evaluation: Evaluation) -> tuple[Path, ...]:
    """Writes report.json, report.html, adversarial.npz and, where one is due, certificate.json into the folder `out`.

    Each appears whole or not at all; a certificate of an earlier audit goes. Returns what was written.
    Raises HardrouteError if the folder cannot be written.
    """
    out = Path(out)
    # All are made before any is written: a page that fails to render must not leave the JSON alone.
    text, gate = _json(report), report["policy"]["content"]["attacks"]["gate_eps"] / 255
    files = {
        out / "report.json": text.encode(),
        out / "report.html": render(report, clips, evaluation).encode(),
        out / kept.NAME: kept.archive(clips, evaluation, gate),
    }
    due = certificate(report, text)
    if due:
        files[out / NAME] = due.to_bytes()
    try:
        out.mkdir(parents=True, exist_ok=True)
        # First: at no moment does an old certificate lie beside a new report.
        (out / NAME).unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as folder:
            for path, data in files.items():
                (Path(folder) / path.name).write_bytes(data)
            for path in files:
                os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise HardrouteError(f"{out}: the report cannot be written ({error.strerror}); choose another --out") from None
    return tuple(files)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    # JSON has no infinity; null stands for "no finite answer".
    return value if math.isfinite(value) else None


def _clips(found: Audit) -> list[dict[str, Any]]:
    clips, evaluation, agreement = found.clips, found.evaluation, found.agreement
    classes = found.bundle.manifest.classes

    def name(index: int) -> str | None:
        return classes[index] if index >= 0 else None

    def felled_by(n: int, eps: float) -> list[str]:
        own = [attack for attack in evaluation.attacks if not evaluation.per_attack[attack][eps][n]]
        matrix = found.foreign and found.foreign.matrix
        return list(dict.fromkeys(own + (felled_by_transferred(matrix, n) if matrix and eps >= matrix.eps else [])))

    held = {eps: worst_case(evaluation, agreement, eps) for eps in evaluation.eps}
    return [
        {
            "file": file,
            "sha256": clips.sha256[n],
            "label": classes[evaluation.labels[n]],
            "clean": {"label": name(evaluation.clean_label[n]), "expert": int(evaluation.clean_route[n])},
            "holds": {f"{eps * 255:g}": bool(held[eps][n]) for eps in evaluation.eps},
            "felled_by": {f"{eps * 255:g}": felled_by(n, eps) for eps in evaluation.eps if evaluation.clean[n]},
        }
        for n, file in enumerate(clips.files)
    ]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("hardroute", "torch", "onnxruntime", "numpy", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout, or the GPU flavour under another name
            continue
    return found
