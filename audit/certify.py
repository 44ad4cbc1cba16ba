"""A whole audit of one bundle: attack the twin, look for masked gradients, replay in the runtime, decide."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from audit.agreement import Agreement, replay
from audit.cost import gflops
from audit.evaluation import Evaluation, Progress, evaluate
from audit.gate import Verdict, decide
from audit.journal import Journal, key_of
from audit.policy import Policy
from audit.report import build, write
from audit.sanity import Sanity, inspect
from audit.statistics import load_of
from audit.workers import workers
from models import load_twin
from runtime import Engine
from runtime.bundle import Bundle
from runtime.clips import ClipArrays, to_network
from runtime.errors import BundleError

WORK = ".work"  # folder beside the report while the audit runs


@dataclass(frozen=True)
class Audit:
    """All that an audit found, and its verdict. `gflops`: as `audit.cost.gflops` gives them."""

    bundle: Bundle
    policy: Policy
    clips: ClipArrays
    evaluation: Evaluation
    agreement: Agreement
    sanity: Sanity
    verdict: Verdict
    gflops: dict[str, float]

    def write(self, out: str | Path, data: str, limit: int | None, seconds: float) -> tuple[Path, ...]:
        """Writes the report, and the certificate where one is due, into `out` and says where they lie."""
        report = build(self, data, limit, seconds)
        written = write(out, report, self.clips, self.evaluation)
        # Last: killed before this, the audit still goes on from its results.
        shutil.rmtree(Path(out) / WORK, ignore_errors=True)
        return written


def certify(
    bundle: Bundle,
    clips: ClipArrays,
    policy: Policy,
    progress: Progress | None = None,
    thorough: bool = False,
    work: Path | None = None,
    processes: int = 1,
) -> Audit:
    """Audits a bundle on clips whose labels count in the bundle's order of classes.

    Args:
        thorough: run every attack on every clip that is right unattacked, not only on those that still hold.
        work: folder that results are kept in as they come, and taken from if the same audit was cut short.
        processes: attack in so many; more than one only pays where there are cores for them.

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
        key = key_of(
            {"bundle": bundle.digest, "policy": policy.digest, "thorough": thorough}, clips.frames, clips.labels
        )
        with workers(processes, partial(load_twin, bundle.root)) as pool:
            evaluation = evaluate(
                model,
                x,
                y,
                eps=[k / 255 for k in rules.eps],
                suite=rules.suite,
                seed=rules.seed,
                steps=rules.steps,
                thorough=thorough,
                progress=progress,
                journal=Journal(work, key) if work else None,
                pool=pool,
            )
        gate = rules.gate_eps / 255
        sanity = inspect(model, x, y, evaluation.robust[gate], gate, rules.seed, rules.steps)
        agreement = replay(engine, clips.frames, evaluation)
    verdict = decide(evaluation, agreement, sanity, policy)
    operations = gflops(model, x[:1], load_of(evaluation.clean_route, evaluation.experts))
    return Audit(bundle, policy, clips, evaluation, agreement, sanity, verdict, operations)
