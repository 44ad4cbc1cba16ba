"""The parts of report.json, each a typed section."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import JsonValue

from hardroute.audit.checks import Outcome
from hardroute.audit.policy import Policy
from hardroute.audit.report.figures import AttackSettings, Load, Rate, Section
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.clips import ClipContract


def finite(value: float) -> float | None:
    """The number; None, which JSON has a word for, where it is none or infinite."""
    return value if math.isfinite(value) else None


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
            measured=finite(judged.measured),
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
        copies: clips of the set that were left out because they are copies of others.
    """

    name: str
    split: str
    clips: int
    limit: int | None
    digest: str | None = None
    copies: int = 0


class PolicySection(Section):
    """Under which policy.

    Attributes:
        digest: SHA-256 of `definition`; in reports without one, of `content`.
        title: what it is called: shipped under its name, or custom.
        definition: what the policy made the audit do and ask, in full.
    """

    digest: str
    content: Policy
    title: str | None = None
    definition: dict[str, JsonValue] | None = None

    @property
    def called(self) -> str:
        """Its title, or what it calls itself where the report is of a time without."""
        return self.title or f"policy called '{self.content.name}'"


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
