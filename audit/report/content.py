"""report.json: all that an audit measured and under which conditions, in one type that writes and reads it."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import JsonValue, ValidationError

from hardroute.audit.clip_selection import data_digest
from hardroute.audit.evaluation.cost import per_clip, spent
from hardroute.audit.evaluation.replay import worst_case
from hardroute.audit.evaluation.transfer import felled_by as felled_by_transferred
from hardroute.audit.plan import Plan
from hardroute.audit.report.figures import AtEps, AttackSettings, Load, Rate, Section
from hardroute.audit.report.paper_tables import Gflops, Tables
from hardroute.audit.report.sections import (
    AgreementSection,
    BundleSection,
    CheckRow,
    Clean,
    CleanAnswer,
    ClipRow,
    CostSection,
    DataSection,
    PolicySection,
    RouterSection,
    TransferSection,
    VerdictSection,
    finite,
)
from hardroute.audit.result import Audit
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import TooLargeError, read_regular

SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 256 << 20  # some hundred bytes for each clip, and room for many
THREAT_MODEL: Final = {
    "norm": "L-inf per pixel and channel, on RGB in [0, 1] after decoding and resizing",
    "knowledge": "white box: weights, architecture and routing are known to the attacker",
    "goal": "untargeted: any wrong class",
    "verdict": "a fresh forward of the twin on the perturbed clip, and of the runtime on its 8-bit form",
    "headline": "a clip counts as right only if it is right unattacked, under every attack and in both",
}


class Report(Section):
    """report.json, schema version 1: shares in [0, 1], eps in 1/255.

    A field with a default is one that earlier reports of this version lack.

    Attributes:
        created: UTC, ISO 8601. seconds: how long the audit took.
        plan_sha256: of the bytes of plan.json, which was written before the first attack.
        not_certified: why a pass of this audit certifies nothing, a sentence each.
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
    plan_sha256: str | None = None
    not_certified: tuple[str, ...] = ()
    sanity: dict[str, JsonValue]
    clips: tuple[ClipRow, ...]
    versions: dict[str, str]

    @property
    def gate(self) -> AtEps:
        """What was found at the eps that decides."""
        return next(point for point in self.eps if point.eps_255 == self.policy.content.attacks.gate_eps)

    @classmethod
    def of(cls, audit: Audit, plan: Plan, seconds: float) -> Report:
        """What is to be said of an audit that was planned so, and took so many seconds."""
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
                name=plan.data.name,
                split=policy.data.split,
                clips=len(evaluation),
                limit=plan.data.limit,
                digest=data_digest(audit.clips),
                copies=plan.data.copies,
            ),
            thorough=evaluation.thorough,
            attack_precision=audit.means.precision,
            device=audit.means.device,
            backend=audit.means.backend,
            policy=PolicySection(
                digest=plan.policy.digest, content=policy, title=policy.title, definition=plan.policy.definition
            ),
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
                spread=finite(audit.subject.spread),
                factor=audit.subject.factor,
            ),
            tables=Tables.of(evaluation, agreement, gate, gflops),
            gflops=gflops,
            transfer=_transfer(audit),
            cost=_cost(audit),
            agreement=AgreementSection(clean=Rate.of(agreement.clean), lowest=Rate.of(agreement.lowest())),
            baseline=agreement.baseline,
            plan_sha256=plan.sha256,
            not_certified=plan.shortfalls,
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
            text = read_regular(path, MAX_BYTES)
        except OSError as error:
            raise DataError(f"{Path(path)}: cannot be read ({error.strerror or error})") from None
        except TooLargeError:
            raise DataError(f"{Path(path)}: larger than {MAX_BYTES >> 20} MiB, which no report is") from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"{Path(path)}: not a report of schema version {SCHEMA_VERSION} ({where}: {first['msg']}); "
                "run the audit again"
            ) from None


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
