"""What an audit is told to do with, and what it found: plain data, for whoever makes it, writes it or reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hardroute.audit.checks import Measurements, Verdict
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.evaluator import Progress
from hardroute.audit.evaluation.replay import Agreement
from hardroute.audit.evaluation.subject import Subject
from hardroute.audit.evaluation.transfer import Transferred
from hardroute.audit.policy import Policy
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.datasets import ClipArrays

WORK: Final = ".work"  # folder beside the report while the audit runs


def silent(phase: str) -> Progress:
    """Shows nothing. A function with a name, so that `Means` can be sent to another process."""
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
    progress: Callable[[str], Progress] = silent


@dataclass(frozen=True)
class Audit:
    """All that an audit found, and its verdict.

    Attributes:
        measurements: what the checks measured; `verdict`: what the policy made of it.
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
    measurements: Measurements
    verdict: Verdict
    gflops: dict[str, float]
    subject: Subject
