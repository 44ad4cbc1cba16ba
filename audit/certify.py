"""A whole audit of one bundle: attack the twin, look for masked gradients, replay in the runtime, decide."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.bundles import AUDITED
from hardroute.audit.checks.gate import Verdict, decide
from hardroute.audit.checks.sanity import Sanity, inspect
from hardroute.audit.evaluation.cost import gflops
from hardroute.audit.evaluation.evaluator import Evaluation, Progress, evaluate
from hardroute.audit.evaluation.replay import Agreement, replay
from hardroute.audit.evaluation.router_scale import factor_for, scaled, spread
from hardroute.audit.evaluation.statistics import load_of
from hardroute.audit.evaluation.transfer import transfer
from hardroute.audit.evaluation.transferred import Foreign, counted_in
from hardroute.audit.execution.jobs import Pool
from hardroute.audit.execution.journal import Journal, key_of
from hardroute.audit.execution.processes import workers
from hardroute.audit.execution.torchrun import ranks, world
from hardroute.audit.policy import Policy
from hardroute.audit.report.content import build, write
from hardroute.audit.twins import load_twins, require_shape
from hardroute.models import VideoMoE
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.inference import Engine

WORK = ".work"  # folder beside the report while the audit runs


@dataclass(frozen=True)
class Means:
    """How an audit is carried out; but for `thorough`, `sources` and `precision`, nothing that its result depends on.

    Attributes:
        thorough: run every attack on every clip that is right unattacked, not only on those that still hold.
        sources: other bundles by name, whose adversarial clips are shown to the audited one.
        undefended: names of those that were trained without a defence, and so must fall.
        work: folder that results are kept in as they come, and taken from if the same audit was cut short.
        processes: attack in so many; more than one only pays where there are cores for them.
        precision: "bf16" shows attacks the twin in bfloat16; such an audit certifies nothing.
        device: that the twin is attacked on, as hardroute.audit.execution.device.open_device has it.
        backend: that the bundle is replayed in, as hardroute.runtime.backends.open_backend has it.
        progress: gives, for the name of a phase, what to call with (done, total, what).
    """

    thorough: bool = False
    sources: Mapping[str, Bundle] = field(default_factory=dict)
    undefended: tuple[str, ...] = ()
    work: Path | None = None
    processes: int = 1
    precision: str = "fp32"
    device: str = "cpu"
    backend: str = "cpu"
    progress: Callable[[str], Progress] = lambda phase: lambda done, total, what: None


@dataclass(frozen=True)
class Audit:
    """All that an audit found, and its verdict.

    Attributes:
        gflops: as `hardroute.audit.evaluation.cost.gflops` gives them.
        spread: of the router's scores, as `hardroute.audit.evaluation.router_scale.spread` gives it.
    """

    bundle: Bundle
    policy: Policy
    clips: ClipArrays
    means: Means
    evaluation: Evaluation
    foreign: Foreign | None
    agreement: Agreement
    sanity: Sanity
    verdict: Verdict
    gflops: dict[str, float]
    spread: float

    def write(self, out: str | Path, data: str, limit: int | None, seconds: float) -> tuple[Path, ...]:
        """Writes the report, and the certificate where one is due, into `out` and says where they lie."""
        report = build(self, data, limit, seconds)
        written = write(out, report, self.clips, self.evaluation)
        # Last: killed before this, the audit still goes on from its results.
        shutil.rmtree(Path(out) / WORK, ignore_errors=True)
        return written


def certify(bundle: Bundle, clips: ClipArrays, policy: Policy, means: Means) -> Audit:
    """Audits a bundle on clips whose labels count in the bundle's order of classes.

    Raises BundleError if the runtime refuses the bundle, or the twin is not of the bundle's shape; BackendError if
    device or backend cannot run here.
    """
    # First, because it costs least: the runtime verifies the ONNX files and replays the probes.
    with Engine.load(bundle, means.backend) as engine:
        bundles = {AUDITED: bundle, **means.sources}
        models = load_twins(bundles, means.device)
        for name, each in bundles.items():
            require_shape(models[name], each)
        x, y = torch.from_numpy(to_network(clips.frames)), torch.from_numpy(clips.labels)
        spreads = {name: spread(each, x) for name, each in models.items()}
        factors = {name: factor_for(each) for name, each in spreads.items()}
        models, rules = scaled(models, factors), policy.attacks
        model = models[AUDITED]
        key = key_of(
            {
                "bundle": bundle.digest,
                "policy": policy.digest,
                "thorough": means.thorough,
                "precision": means.precision,
            },
            clips.frames,
            clips.labels,
        )
        journal = Journal(means.work, key) if means.work else None
        with _pool(means.processes, partial(load_twins, bundles, means.device, factors)) as pool:
            evaluation = evaluate(
                model,
                x,
                y,
                eps=[k / 255 for k in rules.eps],
                suite=rules.suite,
                seed=rules.seed,
                steps=rules.steps,
                thorough=means.thorough,
                progress=means.progress("attacks"),
                journal=journal,
                pool=pool,
                precision=means.precision,
            )
            gate, foreign = rules.gate_eps / 255, None
            if means.sources:
                matrix = transfer(
                    models,
                    x,
                    y,
                    eps=gate,
                    steps=rules.steps,
                    seed=rules.seed,
                    standing=evaluation.robust[gate],
                    progress=means.progress("transfer"),
                    journal=journal,
                    pool=pool,
                    called={name: each.digest for name, each in bundles.items()},
                )
                evaluation, only = counted_in(evaluation, matrix)
                foreign = Foreign(matrix, only, means.sources, means.undefended)
        sanity = inspect(
            model,
            x,
            y,
            evaluation.robust[gate],
            gate,
            rules.seed,
            rules.steps,
            clean=evaluation.clean,
            progress=means.progress("sanity"),
        )
        agreement = replay(engine, clips.frames, evaluation, progress=means.progress("replay"))
    verdict = decide(evaluation, agreement, sanity, policy, foreign)
    operations = gflops(model, x[:1].to(device_of(model)), load_of(evaluation.clean_route, evaluation.experts))
    evaluation = evaluation.rescaled(1 / factors[AUDITED])
    return Audit(
        bundle, policy, clips, means, evaluation, foreign, agreement, sanity, verdict, operations, spreads[AUDITED]
    )


def _pool(processes: int, build: Callable[[], dict[str, VideoMoE]]) -> AbstractContextManager[Pool | None]:
    _, size = world()
    return ranks(build) if size > 1 else workers(processes, build)
