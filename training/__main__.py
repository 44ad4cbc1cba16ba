"""`python -m training fit` hardens a model; `python -m training export` turns a run into a bundle."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from models import build_model, find_expert
from models.published import start_from
from runtime.clips import ClipArrays, ClipSet, load_clips, open_set
from runtime.errors import DataError, main
from training.export import export_bundle
from training.options import with_settings
from training.precision import Precision
from training.run import Run, RunRecord
from training.screen import Screen, console
from training.settings import FitSettings, settings_from
from training.team import Team
from training.trainer import Trainer, require_device

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
@with_settings
def fit(
    data: Annotated[str, typer.Option(help="labelled set: a folder with manifest.csv, or motion")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    given: dict[str, Any],
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --out, with its own settings")
    ] = False,
) -> None:
    """Train a model with a defence; the run's folder can be resumed and exported. Runs under torchrun, too."""
    run = Run.open(out) if resume and (out / "run.json").exists() else None
    settings = run.record.settings if run else settings_from({"data": data, **given})
    with Team.join(settings.device) as team:
        clip_set = checked(settings, run, team)
        train, val = clips_of(clip_set, settings)
        run = run or created(out, settings, clip_set, team)
        screen = Screen(settings.epochs, silent=not team.leads)
        trainer = Trainer(run, train, val, screen, team)
        with screen.progress:
            trainer.go()
        if not team.leads:
            return
    best = run.best
    typer.echo(f"best epoch {best['epoch']}: clean {best['clean']:.3f}, robust {best['robust']:.3f}, n={best['clips']}")
    typer.echo(f"next: python -m training export {out} --out BUNDLE")


def checked(settings: FitSettings, run: Run | None, team: Team) -> ClipSet:
    """The labelled set of a run; whatever is wrong with its settings is found before a folder is made."""
    for kind in settings.kinds:
        find_expert(kind)
    require_device(settings.device)
    Precision(settings.precision, settings.device)
    settings.check_team(team.size)
    clip_set = open_set(settings.data)
    if run and clip_set.classes != run.record.classes:
        raise DataError(f"{settings.data}: its classes are no longer those of the run in {run.root}")
    if settings.init and run is None:
        start_from(list(build_model(settings.model(len(clip_set.classes))).experts), list(settings.init))
    return clip_set


def clips_of(clip_set: ClipSet, settings: FitSettings) -> tuple[ClipArrays, ClipArrays]:
    """Training clips, and the validation clips that are attacked after each epoch."""
    console.print(f"reading {clip_set.name}")
    val = clip_set.split("val")
    chosen = val.take(min(settings.validate_clips, len(val)), settings.seed)
    return load_clips(clip_set.split("train"), settings.contract), load_clips(chosen, settings.contract)


def created(out: Path, settings: FitSettings, clip_set: ClipSet, team: Team) -> Run:
    """A new run's folder, made by one of the processes."""
    if team.leads:
        tools = {"python": platform.python_version(), "torch": version("torch")}
        Run.create(out, RunRecord(settings=settings, classes=clip_set.classes, tools=tools))
    team.wait()
    return Run.open(out)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    out: Annotated[Path, typer.Option(help="folder of the bundle; must not exist")],
    single: Annotated[bool, typer.Option("--single", help="also compose moe.onnx, routing inside the graph")] = False,
    probes: Annotated[int, typer.Option(help="clips whose expected outputs travel with the bundle", min=1, max=64)] = 8,
) -> None:
    """Turn a run's best weights into a bundle that runtime serves and audit attacks."""
    bundle = export_bundle(Run.open(run), out, single=single, probes=probes)
    typer.echo(f"{out}: {len(bundle.manifest.experts)} experts, digest {bundle.digest}")


if __name__ == "__main__":
    main(app)
