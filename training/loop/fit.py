"""One run from its settings: checked, its clips read, its folder made, trained to the end."""

import logging
import platform
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from pydantic import TypeAdapter, ValidationError

from hardroute.models import build_model
from hardroute.models.published import start_from
from hardroute.runtime.bundle import Manifest
from hardroute.runtime.clips import Spread
from hardroute.runtime.datasets import ClipArrays, ClipCache, ClipSet, cache_root, load_clips, open_set
from hardroute.runtime.errors import DataError
from hardroute.training.console import ConsoleReporter, reading
from hardroute.training.loop.distributed import ProcessGroup
from hardroute.training.loop.trainer import Trainer
from hardroute.training.precision import Precision
from hardroute.training.run import ClipsDigest, Run, RunRecord
from hardroute.training.settings import FitSettings

log = logging.getLogger(__name__)
# What a manifest takes for classes, asked of the manifest itself.
_NAMES: Final = Manifest.model_fields["classes"]
_CLASSES: Final[TypeAdapter[tuple[str, ...]]] = TypeAdapter(Annotated[_NAMES.annotation, _NAMES])  # type: ignore[arg-type]


def fit_run(settings: FitSettings, out: Path, processes: ProcessGroup | None = None, run: Run | None = None) -> Run:
    """Trains a new run in `out`, or goes on with `run`, if it is not finished.

    Raises HardrouteError for whatever is wrong with settings or set, before a folder is made; DataError where `run` is
    one of other settings, or where its set has other clips or labels by now.
    """
    processes = processes or ProcessGroup()
    if run and (difference := settings.first_difference(run.record.settings)):
        raise DataError(f"{run.root} holds a run of other settings (asked for: {difference}); start another run")
    clip_set = checked(settings, run, processes)
    train, val = clips_of(clip_set, settings)
    seen = {"train": ClipsDigest.of(train), "val": ClipsDigest.of(val)}
    if run:
        require_same_clips(run, seen)
        if run.finished_epochs >= settings.epochs:
            return run
    else:
        run = created(out, settings, clip_set, seen, train, processes)
    reporter = ConsoleReporter(settings.epochs, silent=not processes.is_main)
    trainer = Trainer(run, train, val, reporter, processes)
    with reporter.progress:
        trainer.go()
    return run


def checked(settings: FitSettings, run: Run | None, processes: ProcessGroup) -> ClipSet:
    """The labelled set of a run that can be carried out."""
    Precision(settings.precision, settings.device)
    settings.check_processes(processes.size)
    Spread(settings.contract.seconds, settings.clips_per_video)
    clip_set = open_set(settings.data)
    if run and clip_set.classes != run.record.classes:
        raise DataError(f"{settings.data}: its classes are no longer those of the run in {run.root}")
    if len(clip_set.classes) < 2:
        raise DataError(
            f"{settings.data}: training needs two classes or more, and its only one is {clip_set.classes[0]!r}"
        )
    _require_names(clip_set)
    if settings.init and run is None:
        start_from(list(build_model(settings.model(len(clip_set.classes))).experts), list(settings.init))
    return clip_set


def _require_names(clip_set: ClipSet) -> None:
    """Raises DataError for classes that a bundle could not name: found now, and not after the training."""
    try:
        _CLASSES.validate_python(clip_set.classes)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{clip_set.name}: class {str(first['input'])[:80]!r} cannot stand in a bundle: {first['msg']}"
        ) from None


def require_same_clips(run: Run, seen: Mapping[str, ClipsDigest]) -> None:
    """Raises DataError unless the clips of both splits are those that the run began with."""
    for split, before in (("train", run.record.train), ("val", run.record.val)):
        if before is None:
            log.warning("%s: an older version noted no digests of its clips; they are not compared", run.root)
            return
        what = seen[split].first_difference(before)
        if what:
            raise DataError(
                f"{run.record.settings.data}: the {what} of split {split!r} are no longer those of the run in "
                f"{run.root}; bring them back, or start another run"
            )


def clips_of(clip_set: ClipSet, settings: FitSettings) -> tuple[ClipArrays, ClipArrays]:
    """Training clips, and the validation clips that are attacked after each epoch."""
    val = clip_set.split("val")
    chosen = val.take(min(settings.validate_clips, len(val)), settings.seed)
    load = partial(load_clips, contract=settings.contract, decoder=ClipCache(cache_root() / "clips").decode_clips)
    with reading() as show:
        return (
            load(clip_set.split("train"), progress=show("train"), per_video=settings.clips_per_video),
            load(chosen, progress=show("val")),
        )


def created(
    out: Path,
    settings: FitSettings,
    clip_set: ClipSet,
    seen: Mapping[str, ClipsDigest],
    train: ClipArrays,
    processes: ProcessGroup,
) -> Run:
    """A new run's folder, made by one of the processes."""
    if processes.is_main:
        tools = {"python": platform.python_version(), "torch": version("torch")}
        record = RunRecord(settings=settings, classes=clip_set.classes, tools=tools, **seen)
        Run.create(out, record, zip(train.sha256, train.frames_sha256, strict=True))
    processes.barrier()
    return Run.open(out)
