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
from typing import Any

import numpy as np

from audit.agreement import Agreement, worst_case
from audit.attacks import ATTACKS
from audit.evaluation import Evaluation
from audit.gate import Verdict
from audit.page import render
from audit.policy import Policy
from audit.sanity import Sanity
from audit.statistics import Proportion, load_entropy, load_of
from runtime.bundle import Bundle
from runtime.clips import ClipArrays
from runtime.errors import HardrouteError

SCHEMA_VERSION = 1
THREAT_MODEL = {
    "norm": "L-inf per pixel and channel, on RGB in [0, 1] after decoding and resizing",
    "knowledge": "white box: weights, architecture and routing are known to the attacker",
    "goal": "untargeted: any wrong class",
    "verdict": "a fresh forward of the twin on the perturbed clip, and of the runtime on its 8-bit form",
    "headline": "a clip counts as right only if it is right unattacked, under every attack and in both",
}


def build(
    bundle: Bundle,
    data: str,
    limit: int | None,
    policy: Policy,
    clips: ClipArrays,
    evaluation: Evaluation,
    agreement: Agreement,
    sanity: Sanity,
    verdict: Verdict,
    seconds: float,
) -> dict[str, Any]:
    """The content of report.json (schema version 1): plain values, shares in [0, 1], eps in 1/255."""
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
        "data": {"name": data, "split": policy.data.split, "clips": len(evaluation), "limit": limit},
        "policy": {"digest": policy.digest, "content": policy.model_dump(mode="json")},
        "threat_model": THREAT_MODEL,
        "attacks": [_attack(name, evaluation) for name in evaluation.attacks],
        "clean": {
            "audited": Proportion.of(evaluation.clean).as_dict(),
            "deployed": Proportion.of(agreement.clean_right).as_dict(),
            "both": Proportion.of(evaluation.clean & agreement.clean_right).as_dict(),
        },
        "eps": [_at(eps, evaluation, agreement) for eps in evaluation.eps],
        "router": {"experts": evaluation.experts, "clean": _load(evaluation.clean_route, evaluation.experts)},
        "agreement": {
            "clean": Proportion.of(agreement.clean).as_dict(),
            "lowest": agreement.lowest().as_dict(),
        },
        "sanity": {
            "training": list(sanity.training),
            "repeat_difference": _finite(sanity.repeat_difference),
            "batch_difference": _finite(sanity.batch_difference),
            "dead_gradients": sanity.dead_gradients.as_dict(),
            "far": sanity.far.as_dict(),
            "chance": sanity.chance,
        },
        "clips": _clips(clips, evaluation, agreement, bundle.manifest.classes),
        "versions": _versions(),
    }


def write(out: str | Path, report: dict[str, Any], clips: ClipArrays, evaluation: Evaluation) -> tuple[Path, Path]:
    """Writes report.json and report.html into the folder `out`: each appears whole or not at all.

    Raises HardrouteError if the folder cannot be written.
    """
    out = Path(out)
    # Both are made before either is written: a page that fails to render must not leave the JSON alone.
    texts = {
        out / "report.json": json.dumps(report, indent=2, allow_nan=False) + "\n",
        out / "report.html": render(report, clips, evaluation),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as folder:
            for path, text in texts.items():
                (Path(folder) / path.name).write_text(text, encoding="utf-8")
            for path in texts:
                os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise HardrouteError(f"{out}: the report cannot be written ({error.strerror}); choose another --out") from None
    json_path, html_path = texts
    return json_path, html_path


def _finite(value: float) -> float | None:
    # JSON has no infinity; null stands for "no finite answer".
    return value if math.isfinite(value) else None


def _attack(name: str, evaluation: Evaluation) -> dict[str, Any]:
    row = ATTACKS.get(name)
    if row is None:
        return {"name": name}
    return {
        "name": name,
        "steps": 1 if row.single_step else evaluation.steps,
        "runs": evaluation.experts if row.every_expert else 1,
        "step_rule": row.rule.__name__,
        "path": row.path,
        "random_start": row.random_start,
        "keeps": row.keep,
        "seed": evaluation.seed,
        "settings": asdict(row.settings),
    }


def _at(eps: float, evaluation: Evaluation, agreement: Agreement) -> dict[str, Any]:
    changed = evaluation.adversarial_route[eps] != evaluation.clean_route
    return {
        "eps_255": round(eps * 255, 6),
        "worst_case": Proportion.of(worst_case(evaluation, agreement, eps)).as_dict(),
        "audited": Proportion.of(evaluation.robust[eps]).as_dict(),
        "deployed_on_replay": Proportion.of(agreement.replayed_right[eps]).as_dict(),
        "agreement_on_replay": Proportion.of(agreement.replayed[eps]).as_dict(),
        "per_attack": {
            name: {
                "accuracy": evaluation.accuracy(name, eps).as_dict(),
                "tested": int(evaluation.tested[name][eps].sum()),
                "route_flips": evaluation.flips(name, eps).as_dict(),
            }
            for name in evaluation.attacks
        },
        "router": {
            **_load(evaluation.adversarial_route[eps], evaluation.experts),
            "flips": Proportion.of(changed[evaluation.clean]).as_dict(),
        },
    }


def _load(routes: np.ndarray, experts: int) -> dict[str, Any]:
    load = load_of(routes, experts)
    return {"load": load.tolist(), "entropy": load_entropy(load)}


def _clips(
    clips: ClipArrays, evaluation: Evaluation, agreement: Agreement, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    def name(index: int) -> str | None:
        return classes[index] if index >= 0 else None

    held = {eps: worst_case(evaluation, agreement, eps) for eps in evaluation.eps}
    return [
        {
            "file": file,
            "sha256": clips.sha256[n],
            "label": classes[evaluation.labels[n]],
            "clean": {"label": name(evaluation.clean_label[n]), "expert": int(evaluation.clean_route[n])},
            "holds": {f"{eps * 255:g}": bool(held[eps][n]) for eps in evaluation.eps},
            "felled_by": {
                f"{eps * 255:g}": [a for a in evaluation.attacks if not evaluation.per_attack[a][eps][n]]
                for eps in evaluation.eps
                if evaluation.clean[n]
            },
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
