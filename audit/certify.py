"""A whole audit of one bundle: attack the twin, look for masked gradients, replay in the runtime, decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from audit.agreement import Agreement, replay
from audit.evaluation import Evaluation, Progress, evaluate
from audit.gate import Verdict, decide
from audit.policy import Policy
from audit.report import build, write
from audit.sanity import Sanity, inspect
from models import load_twin
from runtime import Engine
from runtime.bundle import Bundle
from runtime.clips import ClipArrays, to_network
from runtime.errors import BundleError

INSPECTED = 16  # clips that the signs of masked gradients are looked for on


@dataclass(frozen=True)
class Audit:
    """All that an audit found, and its verdict."""

    bundle: Bundle
    policy: Policy
    clips: ClipArrays
    evaluation: Evaluation
    agreement: Agreement
    sanity: Sanity
    verdict: Verdict

    def write(self, out: str | Path, data: str, limit: int | None, seconds: float) -> tuple[Path, Path]:
        """Writes report.json and report.html into `out` and says where they lie."""
        report = build(
            self.bundle,
            data,
            limit,
            self.policy,
            self.clips,
            self.evaluation,
            self.agreement,
            self.sanity,
            self.verdict,
            seconds,
        )
        return write(out, report, self.clips, self.evaluation)


def certify(bundle: Bundle, clips: ClipArrays, policy: Policy, progress: Progress | None = None) -> Audit:
    """Audits a bundle on clips whose labels count in the bundle's order of classes.

    Raises BundleError if the runtime refuses the bundle, or the twin is not of the bundle's shape.
    """
    # First, because it costs least: the runtime verifies the ONNX files and replays the probes.
    with Engine.load(bundle) as engine:
        model = load_twin(bundle.root)
        if len(model.experts) != len(bundle.manifest.experts):
            raise BundleError(
                f"bundle {bundle.root}: its twin has {len(model.experts)} experts, "
                f"its manifest {len(bundle.manifest.experts)}; export it again"
            )
        x, y = torch.from_numpy(to_network(clips.frames)), torch.from_numpy(clips.labels)
        rules = policy.attacks
        some = slice(0, INSPECTED)
        sanity = inspect(model, x[some], y[some], seed=rules.seed, steps=rules.steps)
        evaluation = evaluate(
            model,
            x,
            y,
            eps=[k / 255 for k in rules.eps],
            suite=rules.suite,
            seed=rules.seed,
            steps=rules.steps,
            progress=progress,
        )
        agreement = replay(engine, clips.frames, evaluation)
    verdict = decide(evaluation, agreement, sanity, policy)
    return Audit(bundle, policy, clips, evaluation, agreement, sanity, verdict)
