"""A whole audit of one bundle: attack the twin, replay in the runtime, measure what the gate asks, decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import torch

from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.bundles import AUDITED
from hardroute.audit.checks import Context, decide, measure
from hardroute.audit.evaluation.cost import gflops
from hardroute.audit.evaluation.evaluator import evaluate
from hardroute.audit.evaluation.replay import replay
from hardroute.audit.evaluation.router_scale import factor_for, scaled, spread
from hardroute.audit.evaluation.statistics import load_of
from hardroute.audit.evaluation.transfer import transfer
from hardroute.audit.evaluation.transferred import Foreign, counted_in
from hardroute.audit.execution.jobs import Pool
from hardroute.audit.execution.journal import Journal, key_of
from hardroute.audit.execution.processes import workers
from hardroute.audit.execution.torchrun import ranks, world
from hardroute.audit.policy import Policy
from hardroute.audit.result import Audit, Means
from hardroute.audit.twins import load_twins, require_shape
from hardroute.models import VideoMoE
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
        bundles = {AUDITED: bundle, **means.sources}
        folders = {name: each.root for name, each in bundles.items()}
        models = load_twins(folders, means.device)
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
        accepted.enter_context(_broken_from_here())
        with _pool(means.processes, partial(load_twins, folders, means.device, factors)) as pool:
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
        agreement = replay(engine, clips.frames, evaluation, progress=means.progress("replay"))
        context = Context(model, x, y, evaluation, agreement, policy, foreign)
        measurements = measure(context, means.progress("checks"))
        verdict = decide(measurements, policy)
        operations = gflops(model, x[:1].to(device_of(model)), load_of(evaluation.clean_route, evaluation.experts))
    evaluation = evaluation.rescaled(1 / factors[AUDITED])
    return Audit(
        bundle=bundle,
        policy=policy,
        clips=clips,
        means=means,
        evaluation=evaluation,
        foreign=foreign,
        agreement=agreement,
        measurements=measurements,
        verdict=verdict,
        gflops=operations,
        spread=spreads[AUDITED],
    )


def _pool(processes: int, build: Callable[[], dict[str, VideoMoE]]) -> AbstractContextManager[Pool | None]:
    _, size = world()
    return ranks(build) if size > 1 else workers(processes, build)


@contextmanager
def _broken_from_here() -> Iterator[None]:
    """Within, an error is no longer about what was given. Bugs keep their type."""
    try:
        yield
    except HardrouteError as error:
        raise AuditError(str(error)) from error
    except BrokenProcessPool:
        raise AuditError(
            "a process of this audit was killed; start it again in the same way: it goes on where it was"
        ) from None
