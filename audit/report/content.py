"""report.json: all that an audit measured and under which conditions, in one type that writes and reads it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import JsonValue, ValidationError

from hardroute.audit.checks import Outcome
from hardroute.audit.evaluation.cost import per_clip, spent
from hardroute.audit.evaluation.replay import worst_case
from hardroute.audit.evaluation.transfer import felled_by as felled_by_transferred
from hardroute.audit.policy import Policy
from hardroute.audit.report.figures import AtEps, AttackSettings, Load, Rate, Section
from hardroute.audit.report.paper_tables import Gflops, Tables
from hardroute.audit.result import Audit
from hardroute.runtime.bundle import Baseline, Bundle
from hardroute.runtime.clips import ClipContract
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import open_regular

SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 256 << 20  # some hundred bytes for each clip, and room for many
THREAT_MODEL: Final = {
    "norm": "L-inf per pixel and channel, on RGB in [0, 1] after decoding and resizing",
    "knowledge": "white box: weights, architecture and routing are known to the attacker",
    "goal": "untargeted: any wrong class",
    "verdict": "a fresh forward of the twin on the perturbed clip, and of the runtime on its 8-bit form",
    "headline": "a clip counts as right only if it is right unattacked, under every attack and in both",
}


class CheckRow(Section):
    """One check of the gate: `measured` must be `wants` `bound`; None stands for no finite number."""

    name: str
    measured: float | None
    wants: Literal["at least", "at most"]
    bound: float
    sentence: str
    passed: bool

    @classmethod
    def of(cls, outcome: Outcome) -> CheckRow:
        judged = outcome.judgement
        return cls(
            name=outcome.name,
            measured=_finite(judged.measured),
            wants=judged.wants,
            bound=judged.bound,
            sentence=outcome.sentence,
            passed=outcome.passed,
        )


class VerdictSection(Section):
    """Passed if every check did."""

    passed: bool
    checks: tuple[CheckRow, ...]


class ExpertKind(Section):
    """What an expert's network is."""

    kind: str
    width: int


class BundleSection(Section):
    """What was audited; `digest`: of its manifest."""

    name: str
    digest: str
    classes: tuple[str, ...]
    experts: tuple[ExpertKind, ...]
    contract: ClipContract

    @classmethod
    def of(cls, bundle: Bundle) -> BundleSection:
        manifest = bundle.manifest
        return cls(
            name=manifest.name,
            digest=bundle.digest,
            classes=manifest.classes,
            experts=tuple(ExpertKind(kind=each.kind, width=each.width) for each in manifest.experts),
            contract=manifest.contract,
        )


class DataSection(Section):
    """On which clips.

    Attributes:
        limit: how many were asked for where that was fewer than the policy's. digest: of clips and labels.
    """

    name: str
    split: str
    clips: int
    limit: int | None
    digest: str | None = None


class PolicySection(Section):
    """Under which policy."""

    digest: str
    content: Policy


class Clean(Section):
    """Right unattacked: in the twin, in the deployed runtime, in both."""

    audited: Rate
    deployed: Rate
    both: Rate


class RouterSection(Section):
    """Where the unattacked clips go; `spread` of the router's scores, and the `factor` they were attacked times."""

    experts: int
    clean: Load
    spread: float | None = None
    factor: float = 1.0


class Source(Section):
    """Another bundle whose adversarial clips were shown."""

    digest: str
    undefended: bool


class Paired(Section):
    """Clips that hold on one of two models alone, and p of the exact test."""

    this_only: int
    other_only: int
    p: float


class TransferSection(Section):
    """Clips made on one model, shown to others: accuracy[source][attack][target], of all clips."""

    eps_255: float
    models: dict[str, Source]
    clean: dict[str, Rate]
    accuracy: dict[str, dict[str, dict[str, Rate]]]
    only_transferred: Rate
    white_box: dict[str, Rate]
    paired: dict[str, Paired]
    attacks: tuple[AttackSettings, ...] = ()


class Passes(Section):
    """Clips through the router or one expert."""

    router_forward: float
    router_backward: float
    expert_forward: float
    expert_backward: float
    expert_passes: float


class AttackPasses(Passes):
    """Of one attack on `clips` clips, all together."""

    clips: int


class CostSection(Section):
    """Passes per audited clip; `never_run`: attacks that no clip was left for."""

    unit: str
    spent: Passes
    without_removal: Passes
    share: float | None
    never_run: tuple[str, ...]
    per_attack: dict[str, dict[str, AttackPasses]]
    transfer: Passes | None = None
    sanity: Passes | None = None


class AgreementSection(Section):
    """Clips with the same class and expert in twin and runtime: unattacked, and in the worst of the sets replayed."""

    clean: Rate
    lowest: Rate


class CleanAnswer(Section):
    """What the twin says of a clip unattacked; no label where its answer is not finite."""

    label: str | None
    expert: int


class ClipRow(Section):
    """One clip: whether it holds, and which attacks fell it, at each eps in 1/255."""

    file: str
    sha256: str
    label: str
    clean: CleanAnswer
    holds: dict[str, bool]
    felled_by: dict[str, tuple[str, ...]]


class Report(Section):
    """report.json, schema version 1: shares in [0, 1], eps in 1/255.

    A field with a default is one that earlier reports of this version lack.

    Attributes:
        created: UTC, ISO 8601. seconds: how long the audit took.
        sanity: the figures behind the checks, by what each check calls them.
        versions: of what it was made with.
    """

    schema_version: Literal[1]
    created: str
    seconds: float
    verdict: VerdictSection
    bundle: BundleSection
    data: DataSection
    thorough: bool = False
    attack_precision: str = "fp32"
    device: str = "cpu"
    backend: str = "cpu"
    policy: PolicySection
    threat_model: dict[str, str]
    attacks: tuple[AttackSettings, ...]
    clean: Clean
    eps: tuple[AtEps, ...]
    router: RouterSection
    tables: Tables = Tables()
    gflops: Gflops | None = None
    transfer: TransferSection | None = None
    cost: CostSection | None = None
    agreement: AgreementSection
    baseline: Baseline | None = None
    sanity: dict[str, JsonValue]
    clips: tuple[ClipRow, ...]
    versions: dict[str, str]

    @property
    def gate(self) -> AtEps:
        """What was found at the eps that decides."""
        return next(point for point in self.eps if point.eps_255 == self.policy.content.attacks.gate_eps)

    @classmethod
    def of(cls, audit: Audit, data: str, limit: int | None, seconds: float) -> Report:
        """What is to be said of an audit of the set called `data`, which took so many seconds."""
        bundle, policy, evaluation, agreement = audit.bundle, audit.policy, audit.evaluation, audit.agreement
        gate, gflops = policy.attacks.gate_eps / 255, Gflops.model_validate(audit.gflops)
        return cls(
            schema_version=SCHEMA_VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            verdict=VerdictSection(
                passed=audit.verdict.passed, checks=tuple(CheckRow.of(each) for each in audit.verdict.checks)
            ),
            bundle=BundleSection.of(bundle),
            data=DataSection(
                name=data,
                split=policy.data.split,
                clips=len(evaluation),
                limit=limit,
                digest=data_digest(audit.clips),
            ),
            thorough=evaluation.thorough,
            attack_precision=audit.means.precision,
            device=audit.means.device,
            backend=audit.means.backend,
            policy=PolicySection(digest=policy.digest, content=policy),
            threat_model=THREAT_MODEL,
            attacks=tuple(AttackSettings.of(name, evaluation) for name in evaluation.attacks),
            clean=Clean(
                audited=Rate.of(evaluation.clean),
                deployed=Rate.of(agreement.clean_right),
                both=Rate.of(evaluation.clean & agreement.clean_right),
            ),
            eps=tuple(AtEps.of(eps, evaluation, agreement) for eps in evaluation.eps),
            router=RouterSection(
                experts=evaluation.experts,
                clean=Load.of(evaluation.clean_route, evaluation.experts),
                spread=_finite(audit.subject.spread),
                factor=audit.subject.factor,
            ),
            tables=Tables.of(evaluation, agreement, gate, gflops),
            gflops=gflops,
            transfer=_transfer(audit),
            cost=_cost(audit),
            agreement=AgreementSection(clean=Rate.of(agreement.clean), lowest=Rate.of(agreement.lowest())),
            baseline=agreement.baseline,
            sanity=audit.measurements.record(),
            clips=_clips(audit),
            versions=_versions(),
        )

    @property
    def made_of(self) -> tuple[str, str, str | None, str]:
        """What decides its figures: digests of bundle, policy and clips, and the attacks' precision."""
        return self.bundle.digest, self.policy.digest, self.data.digest, self.attack_precision

    def to_json(self) -> str:
        """The text of report.json."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Report:
        """From a report.json. Raises DataError, in one line, for what cannot be read or is none."""
        try:
            with open_regular(path) as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise DataError(f"{Path(path)}: cannot be read ({error.strerror or error})") from None
        if len(text) > MAX_BYTES:
            raise DataError(f"{Path(path)}: larger than {MAX_BYTES >> 20} MiB, which no report is")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"{Path(path)}: not a report of schema version {SCHEMA_VERSION} ({where}: {first['msg']}); "
                "run the audit again"
            ) from None


def data_digest(clips: ClipArrays) -> str:
    """SHA-256 over a line "<digest of the file's bytes> <class>" per clip, in the report's order."""
    lines = [f"{sha256} {clips.classes[label]}\n" for sha256, label in zip(clips.sha256, clips.labels, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _transfer(audit: Audit) -> TransferSection | None:
    if audit.foreign is None:
        return None
    shown = [AttackSettings.of(name, audit.evaluation) for name in audit.foreign.matrix.attacks]
    return TransferSection.model_validate({**audit.foreign.as_dict(), "attacks": shown})


def _cost(audit: Audit) -> CostSection:
    clips, matrix = len(audit.evaluation), audit.foreign and audit.foreign.matrix
    found: dict[str, Any] = {
        **spent(audit.evaluation.costs, clips),
        "transfer": matrix and per_clip(matrix.passes, clips),
        "sanity": per_clip(audit.measurements.passes, clips),
    }
    return CostSection.model_validate(found)


def _clips(audit: Audit) -> tuple[ClipRow, ...]:
    clips, evaluation, agreement = audit.clips, audit.evaluation, audit.agreement
    classes, matrix = audit.bundle.manifest.classes, audit.foreign and audit.foreign.matrix

    def name(index: int) -> str | None:
        return classes[index] if index >= 0 else None

    def felled_by(n: int, eps: float) -> tuple[str, ...]:
        own = [attack for attack in evaluation.attacks if not evaluation.per_attack[attack][eps][n]]
        return tuple(dict.fromkeys(own + (felled_by_transferred(matrix, n) if matrix and eps >= matrix.eps else [])))

    held = {eps: worst_case(evaluation, agreement, eps) for eps in evaluation.eps}
    return tuple(
        ClipRow(
            file=file,
            sha256=clips.sha256[n],
            label=classes[evaluation.labels[n]],
            clean=CleanAnswer(label=name(evaluation.clean_label[n]), expert=int(evaluation.clean_route[n])),
            holds={f"{eps * 255:g}": bool(held[eps][n]) for eps in evaluation.eps},
            felled_by={f"{eps * 255:g}": felled_by(n, eps) for eps in evaluation.eps if evaluation.clean[n]},
        )
        for n, file in enumerate(clips.files)
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("hardroute", "torch", "onnxruntime", "numpy", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout, or the GPU flavour under another name
            continue
    return found
