"""Methods side by side: each trained for the same number of operations, each audited, one table.

Every step leaves its result on disk, so that a comparison that was cut short goes on where it was.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardroute.audit.certify import certify
from hardroute.audit.clip_selection import chosen_clips, ordered
from hardroute.audit.policy import Policy
from hardroute.audit.report import REPORT, Report, write
from hardroute.audit.result import WORK, Means
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.datasets import load_clips, open_set
from hardroute.runtime.errors import DataError
from hardroute.training.comparison.compute import equal_epochs, run_flops
from hardroute.training.export.bundle import export_bundle
from hardroute.training.loop.distributed import Team
from hardroute.training.loop.fit import fit_run
from hardroute.training.loop.run import Run, write_text
from hardroute.training.settings import FitSettings


@dataclass(frozen=True)
class Entry:
    """One method with one seed: where its run, bundle and audit lie."""

    settings: FitSettings
    root: Path

    @property
    def name(self) -> str:
        return f"{self.settings.method}-{self.settings.seed}"

    @property
    def run(self) -> Path:
        return self.root / "runs" / self.name

    @property
    def bundle(self) -> Path:
        return self.root / "bundles" / self.name

    @property
    def audit(self) -> Path:
        return self.root / "audits" / self.name


def equal_shares(settings: list[FitSettings], reference: FitSettings, classes: int) -> list[FitSettings]:
    """The same settings with the epochs that cost each what `reference` costs with its own."""
    return [each.model_copy(update={"epochs": equal_epochs(each, reference, classes)}) for each in settings]


def compare(
    settings: list[FitSettings], reference: FitSettings, root: Path, policy: Policy, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Trains, exports and audits each of `settings`, and returns a row for each.

    Raises DataError if `root` holds runs of other settings.
    """
    classes = len(open_set(reference.data).classes)
    rows = []
    for chosen in equal_shares(settings, reference, classes):
        entry = Entry(chosen, root)
        say(f"{entry.name}: {chosen.epochs} epochs")
        trained(entry)
        audited(entry, policy)
        rows.append(row(entry, classes))
        write_text(root / "compare.json", json.dumps(rows, indent=2) + "\n")
    return rows


def trained(entry: Entry) -> None:
    """Fits and exports, or goes on where that was cut short."""
    run = Run.open(entry.run) if (entry.run / "run.json").exists() else None
    if run and run.record.settings != entry.settings:
        raise DataError(f"{entry.run} holds a run of other settings; choose another --out, or remove it")
    if not run or run.finished_epochs < entry.settings.epochs:
        run = fit_run(entry.settings, entry.run, Team(), run)
    if not entry.bundle.exists():
        export_bundle(run, entry.bundle, as_trained=True)


def audited(entry: Entry, policy: Policy) -> None:
    """Runs every attack of the policy on every clip; the gate's verdict does not matter here.

    After training in bf16 the attacks see the model in bf16 as well, for the time it saves; verdicts are in fp32.
    """
    if (entry.audit / REPORT).exists():
        return
    began, bundle, settings = time.monotonic(), Bundle.open(entry.bundle), entry.settings
    clip_set = chosen_clips(open_set(settings.data), bundle, policy, None)
    clips = ordered(load_clips(clip_set, settings.contract), bundle)
    means = Means(
        thorough=True,
        work=entry.audit / WORK,
        precision="bf16" if settings.precision == "bf16" else "fp32",
        device=settings.device,
    )
    result = certify(bundle, clips, policy, means)
    write(result, entry.audit, clip_set.name, None, time.monotonic() - began)


def row(entry: Entry, classes: int) -> dict[str, Any]:
    """What the table says of one entry: accuracies with n and interval, slopes, operations, load, training compute."""
    report, run = Report.read(entry.audit / REPORT), Run.open(entry.run)
    if report.tables.this_model is None:
        raise DataError(f"{entry.audit / REPORT}: attacks did not run on every clip; remove the folder to audit again")
    clips = len(open_set(entry.settings.data).split("train"))
    return {
        "method": entry.settings.method,
        "seed": entry.settings.seed,
        "epochs": entry.settings.epochs,
        "training_tflops": run_flops(entry.settings, classes) * clips / 1e12,
        "training_seconds": sum(epoch["seconds"] for epoch in run.metrics),
        "load_entropy": report.router.clean.entropy,
        "bundle": report.bundle.digest,
        "attack_precision": report.attack_precision,
        "router_spread": report.router.spread,
        **report.tables.this_model.model_dump(mode="json"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in the shape of the paper's Tab. 2, as Markdown: per cent with 95 % Wilson intervals."""
    columns = list(rows[0]["accuracy"])
    head = ["method", "seed", "epochs", *columns, "Lips-R", "Lips-R / spread", "Lips-J", "GFLOPs", "load entropy"]
    lines = [head, ["---"] * len(head)]
    for each in rows:
        cells = [each["method"], str(each["seed"]), str(each["epochs"])]
        for found in (each["accuracy"].get(column) for column in columns):
            cells.append(
                f"{100 * found['share']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})" if found else "-"
            )
        router, joint = (each[name]["mean"] if each[name] else None for name in ("lips_r", "lips_j"))
        # Lips-R shrinks with the router's scores, and routes do not: what it is of their spread does not.
        relative = router / each["router_spread"] if router is not None and each["router_spread"] else None
        slopes = [router, relative, joint]
        cells += ["-" if slope is None else f"{slope:.3g}" for slope in slopes]
        cells += [f"{each['gflops']['routed']:.3f}", f"{each['load_entropy']:.2f}"]
        lines.append(cells)
    n = rows[0]["accuracy"]["CLEAN"]["n"]
    caption = (
        f"Accuracy in per cent at eps {rows[0]['eps_255']:g}/255, n = {n}; {rows[0]['training_tflops']:.0f} TFLOP each."
    )
    return caption + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
