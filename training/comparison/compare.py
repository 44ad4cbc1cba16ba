"""Methods side by side: each trained for the same number of operations, each audited, one table.

Every step leaves its result on disk, so that a comparison that was cut short goes on where it was.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hardroute.audit.certify import certify
from hardroute.audit.clip_selection import chosen_clips, data_digest, once_each, ordered, require_unseen
from hardroute.audit.plan import Plan
from hardroute.audit.policy import Policy
from hardroute.audit.policy_digest import digest
from hardroute.audit.report import REPORT, Report, write
from hardroute.audit.result import WORK, Means
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.datasets import ClipCache, cache_root, load_clips, open_set
from hardroute.runtime.files import write_whole
from hardroute.training.comparison.compute import equal_epochs, spent_flops
from hardroute.training.comparison.report import Row, row_of
from hardroute.training.export import export_bundle, summary
from hardroute.training.loop import fit_run
from hardroute.training.run import Run
from hardroute.training.settings import FitSettings

log = logging.getLogger(__name__)


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
) -> list[Row]:
    """Trains, exports and audits each of `settings`, and returns a row for each.

    Raises DataError if `root` holds runs of other settings.
    """
    clip_set = open_set(reference.data)
    classes, clips = len(clip_set.classes), len(clip_set.split("train"))
    rows = []
    for chosen in equal_shares(settings, reference, classes):
        entry = Entry(chosen, root)
        say(f"{entry.name}: {chosen.epochs} epochs")
        run = trained(entry)
        audited(entry, policy)
        rows.append(row_of(run, entry.audit, spent_flops(run) * clips / 1e12))
        write_whole(root / "compare.json", json.dumps(rows, indent=2) + "\n")
    return rows


def trained(entry: Entry) -> Run:
    """Fits and exports, or goes on where that was cut short."""
    run = Run.open(entry.run) if (entry.run / "run.json").exists() else None
    run = fit_run(entry.settings, entry.run, run=run)
    if entry.bundle.exists() and Bundle.open(entry.bundle).manifest.training != summary(run):
        log.warning("%s is not of the run in %s, and is exported anew", entry.bundle, entry.run)
        shutil.rmtree(entry.bundle)
    if not entry.bundle.exists():
        export_bundle(run, entry.bundle, as_trained=True)
    return run


def audited(entry: Entry, policy: Policy) -> None:
    """Runs every attack of the policy on every clip; the gate's verdict does not matter here.

    After training in bf16 the attacks see the model in bf16 as well, for the time it saves; verdicts are in fp32. An
    audit that is there already is taken if it was made of this bundle, by this policy, on these clips.
    """
    began, bundle, settings = time.monotonic(), Bundle.open(entry.bundle), entry.settings
    clip_set = chosen_clips(open_set(settings.data), bundle, policy, None)
    decoder = ClipCache(cache_root() / "clips").decode_clips
    loaded = load_clips(clip_set, settings.contract, decoder=decoder)
    clips, copies = once_each(ordered(loaded, bundle), clip_set.name)
    require_unseen(clips, bundle, clip_set.name)
    precision = "bf16" if settings.precision == "bf16" else "fp32"
    if (entry.audit / REPORT).exists():
        made_of = Report.read(entry.audit / REPORT).made_of
        if made_of == (bundle.digest, digest(policy), data_digest(clips), precision):
            return
        log.warning("%s is of another bundle, policy or set, and is made anew", entry.audit)
        shutil.rmtree(entry.audit)
    means = Means(thorough=True, work=entry.audit / WORK, precision=precision, device=settings.device)
    plan = Plan.of(bundle, clips, policy, means, data=clip_set.name, copies=copies).going_on(entry.audit)
    result = certify(bundle, clips, policy, means, before=partial(plan.write, entry.audit))
    plan.require_unchanged(bundle, clips, clip_set, policy)
    write(result, entry.audit, plan, time.monotonic() - began)
