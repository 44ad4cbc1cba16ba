"""A whole audit of one bundle: attack the twin, look for masked gradients, replay in the runtime, decide."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.bundles import load_twins
from hardroute.audit.checks.gate import Verdict, decide
from hardroute.audit.checks.sanity import Sanity, inspect
from hardroute.audit.evaluation.cost import gflops
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.evaluator import Progress, evaluate
from hardroute.audit.evaluation.replay import Agreement, replay
from hardroute.audit.evaluation.statistics import load_of
from hardroute.audit.evaluation.subject import Subject
from hardroute.audit.evaluation.transfer import AUDITED, Transferred, counted_in, transfer
from hardroute.audit.execution.journal import Journal, Member, key_of
from hardroute.audit.execution.processes import workers
from hardroute.audit.execution.torchrun import together, world
from hardroute.audit.policy import Policy
from hardroute.audit.report.content import build, write
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.inference import Engine

WORK = ".work"  # folder beside the report while the audit runs


def _silent(phase: str) -> Progress:
    return lambda done, total, what: None


@dataclass(frozen=True)
class Means:
    """How an audit is carried out; but for `thorough`, `sources` and `precision`, nothing that its result depends on.

    Attributes:
        thorough: run every attack on every clip that is right unattacked, not only on those that still hold.
        sources: other bundles by name, whose adversarial clips are shown to the audited one.
        undefended: names of those that were trained without a defence, and so must fall.
        work: folder that results are kept in as they come, and taken from if the same audit was cut short. The
            processes of a torchrun share it.
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
    progress: Callable[[str], Progress] = _silent


@dataclass(frozen=True)
class Audit:
    """All that an audit found, and its verdict.

    Attributes:
        gflops: as `hardroute.audit.evaluation.cost.gflops` gives them.
        subject: what was attacked; the evaluation's slopes are those of the router as it was found.
    """

    bundle: Bundle
    policy: Policy
    clips: ClipArrays
    means: Means
    evaluation: Evaluation
    foreign: Transferred | None
    agreement: Agreement
    sanity: Sanity
    verdict: Verdict
    gflops: dict[str, float]
    subject: Subject

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
    rules = policy.attacks
    # First, because it costs least: the runtime verifies the ONNX files and replays the probes.
    with Engine.load(bundle, means.backend) as engine:
        x, y = torch.from_numpy(to_network(clips.frames)), torch.from_numpy(clips.labels)
        subjects = _subjects(bundle, means, x)
        with _journal(bundle, clips, policy, means) as journal:
            evaluation, foreign = _attacked(subjects, bundle, x, y, policy, means, journal)
        subject, gate = subjects[AUDITED], rules.gate_eps / 255
        sanity = inspect(
            subject.model,
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
    where, load = device_of(subject.model), load_of(evaluation.clean_route, evaluation.experts)
    operations = gflops(subject.model, x[:1].to(where), load)
    evaluation = subject.as_found(evaluation)
    return Audit(bundle, policy, clips, means, evaluation, foreign, agreement, sanity, verdict, operations, subject)


def assist(bundle: Bundle, clips: ClipArrays, policy: Policy, means: Means, member: Member | None = None) -> None:
    """Attacks as `certify` does at the same time in another process, and leaves the rest to it.

    Args:
        member: what to share the journal in `means.work` as; left out, this is a rank of a torchrun.
    """
    if member is None:
        with together() as member:
            return assist(bundle, clips, policy, means, member)
    x, y = torch.from_numpy(to_network(clips.frames)), torch.from_numpy(clips.labels)
    journal = Journal(_shared(means), _key(bundle, clips, policy, means), member)
    _attacked(_subjects(bundle, means, x), bundle, x, y, policy, means, journal)


def _subjects(bundle: Bundle, means: Means, x: Tensor) -> dict[str, Subject]:
    twins = load_twins({AUDITED: bundle, **means.sources}, means.device)
    return {name: Subject.of(twin, x) for name, twin in twins.items()}


def _attacked(
    subjects: Mapping[str, Subject],
    bundle: Bundle,
    x: Tensor,
    y: Tensor,
    policy: Policy,
    means: Means,
    journal: Journal | None,
) -> tuple[Evaluation, Transferred | None]:
    """What falls to the policy's attacks, and to clips made on other models."""
    rules = policy.attacks
    evaluation = evaluate(
        subjects[AUDITED].model,
        x,
        y,
        eps=[k / 255 for k in rules.eps],
        suite=rules.suite,
        seed=rules.seed,
        steps=rules.steps,
        thorough=means.thorough,
        progress=means.progress("attacks"),
        journal=journal,
        precision=means.precision,
    )
    if not means.sources:
        return evaluation, None
    gate = rules.gate_eps / 255
    matrix = transfer(
        {name: subject.model for name, subject in subjects.items()},
        x,
        y,
        eps=gate,
        steps=rules.steps,
        seed=rules.seed,
        standing=evaluation.robust[gate],
        progress=means.progress("transfer"),
        journal=journal,
        called={AUDITED: bundle.digest, **{name: each.digest for name, each in means.sources.items()}},
    )
    evaluation, only = counted_in(evaluation, matrix)
    return evaluation, Transferred(matrix, only, means.sources, means.undefended)


@contextmanager
def _journal(bundle: Bundle, clips: ClipArrays, policy: Policy, means: Means) -> Iterator[Journal | None]:
    """Within: this audit's journal, and as many other processes that share it as there are to be."""
    key, (_, size) = _key(bundle, clips, policy, means), world()
    if size > 1:
        with together() as member:
            yield Journal(_shared(means), key, member)
    elif means.processes > 1:
        with tempfile.TemporaryDirectory() as scratch:
            means = replace(means, work=means.work or Path(scratch), progress=_silent)
            with workers(means.processes, partial(assist, bundle, clips, policy, means)) as member:
                yield Journal(_shared(means), key, member)
    else:
        yield Journal(means.work, key) if means.work else None


def _shared(means: Means) -> Path:
    if means.work is None:
        raise ValueError("processes that attack together share what they find in a folder: give Means(work=...)")
    return means.work


def _key(bundle: Bundle, clips: ClipArrays, policy: Policy, means: Means) -> str:
    conditions = {
        "bundle": bundle.digest,
        "policy": policy.digest,
        "thorough": means.thorough,
        "precision": means.precision,
    }
    return key_of(conditions, clips.frames, clips.labels)
