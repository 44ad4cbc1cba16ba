"""A whole audit of one bundle: attack the twin, replay in the runtime, measure what the gate asks, decide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.bundles import load_twins
from hardroute.audit.checks import Context, decide, measure
from hardroute.audit.evaluation.cost import gflops
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.evaluator import evaluate
from hardroute.audit.evaluation.replay import replay
from hardroute.audit.evaluation.statistics import load_of
from hardroute.audit.evaluation.subject import Subject
from hardroute.audit.evaluation.transfer import AUDITED, Transferred, counted_in, transfer
from hardroute.audit.execution.journal import Journal, Member, key_of
from hardroute.audit.execution.processes import workers
from hardroute.audit.execution.torchrun import together, world
from hardroute.audit.policy import Policy
from hardroute.audit.result import Audit, Means, silent
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import AuditError, HardrouteError
from hardroute.runtime.inference import Engine


def certify(bundle: Bundle, clips: ClipArrays, policy: Policy, means: Means) -> Audit:
    """Audits a bundle on clips whose labels count in the bundle's order of classes.

    Raises BundleError if the runtime refuses the bundle, or the twin is not of the bundle's shape; BackendError if
    device or backend cannot run here; AuditError if, once all of these were accepted, the audit itself broke.
    """
    # First, because it costs least: the runtime verifies the ONNX files and replays the probes.
    with Engine.load(bundle, means.backend) as engine, ExitStack() as accepted:
        x, y = torch.from_numpy(to_network(clips.frames)), torch.from_numpy(clips.labels)
        subjects = _subjects(bundle, means, x)
        accepted.enter_context(_broken_from_here())
        with _journal(bundle, clips, policy, means) as journal:
            evaluation, foreign = _attacked(subjects, bundle, x, y, policy, means, journal)
        subject = subjects[AUDITED]
        agreement = replay(engine, clips.frames, evaluation, progress=means.progress("replay"))
        context = Context(subject.model, x, y, evaluation, agreement, policy, foreign)
        measurements = measure(context, means.progress("checks"))
        where, load = device_of(subject.model), load_of(evaluation.clean_route, evaluation.experts)
        return Audit(
            bundle=bundle,
            policy=policy,
            clips=clips,
            means=means,
            evaluation=subject.as_found(evaluation),
            foreign=foreign,
            agreement=agreement,
            measurements=measurements,
            verdict=decide(measurements, policy),
            gflops=gflops(subject.model, x[:1].to(where), load),
            subject=subject,
        )


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
            means = replace(means, work=means.work or Path(scratch), progress=silent)
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


@contextmanager
def _broken_from_here() -> Iterator[None]:
    """Within, an error is no longer about what was given. Bugs keep their type."""
    try:
        yield
    except HardrouteError as error:
        raise AuditError(str(error)) from error
