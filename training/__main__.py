"""`python -m training fit` hardens a model; `python -m training export` turns a run into a bundle."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from models import build_model, find_expert
from models.published import start_from
from runtime.clips import load_clips, open_set
from runtime.errors import DataError, main
from training.export import export_bundle
from training.methods import find_method
from training.run import Run, RunRecord
from training.screen import Screen, console
from training.settings import FitSettings, settings_from
from training.trainer import Trainer, require_device

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
DEFAULT = FitSettings(data="")


@app.command()
def fit(
    data: Annotated[str, typer.Option(help="labelled set: a folder with manifest.csv, or motion")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    method: Annotated[str, typer.Option(help="a defence, such as plain, at-m, j-tlat")] = DEFAULT.method,
    expert: Annotated[str, typer.Option(help="kind of expert; several, as in r3d18,tsm, take turns")] = DEFAULT.expert,
    experts: Annotated[int, typer.Option(help="number of experts")] = DEFAULT.experts,
    width: Annotated[int, typer.Option(help="channels of an expert's first stage")] = DEFAULT.width,
    blocks: Annotated[str, typer.Option(help="residual blocks of each stage; 0 leaves one out")] = "2,2,2,2",
    router_width: Annotated[int, typer.Option(help="channels of the router's first layer")] = DEFAULT.router_width,
    init: Annotated[list[str] | None, typer.Option(help="published weights to start from, one file per kind")] = None,
    frames: Annotated[int, typer.Option(help="frames per clip")] = DEFAULT.frames,
    size: Annotated[int, typer.Option(help="height and width in pixels")] = DEFAULT.size,
    epochs: Annotated[int, typer.Option(help="passes over the training clips per step")] = DEFAULT.epochs,
    batch: Annotated[int, typer.Option(help="clips per optimiser step")] = DEFAULT.batch,
    lr: Annotated[float, typer.Option(help="peak learning rate")] = DEFAULT.lr,
    weight_decay: Annotated[float, typer.Option(help="weight decay of the experts")] = DEFAULT.weight_decay,
    eps: Annotated[float, typer.Option(help="L-infinity budget, in 1/255")] = DEFAULT.eps * 255,
    inner_steps: Annotated[int, typer.Option(help="steps of the inner attack")] = DEFAULT.inner_steps,
    lam: Annotated[float, typer.Option(help="Lipschitz weight, outer loss")] = DEFAULT.lam,
    inner_lam: Annotated[float, typer.Option(help="Lipschitz weight, inner attack")] = DEFAULT.inner_lam,
    ramp: Annotated[float, typer.Option(help="share of the run over which eps grows")] = DEFAULT.ramp,
    assign: Annotated[str, typer.Option(help="the router's targets: balanced or argmax")] = DEFAULT.assign,
    balance: Annotated[float, typer.Option(help="weight of the load-balancing term")] = DEFAULT.balance,
    shift: Annotated[int, typer.Option(help="augmentation: shift by up to so many pixels")] = DEFAULT.shift,
    flip: Annotated[bool, typer.Option(help="augmentation: mirror half of the clips")] = DEFAULT.flip,
    average: Annotated[float, typer.Option(help="decay of the averaged weights; 0 for none")] = DEFAULT.average,
    validate_clips: Annotated[int, typer.Option(help="validation clips attacked per epoch")] = DEFAULT.validate_clips,
    seed: Annotated[int, typer.Option(help="seed of everything random")] = DEFAULT.seed,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = DEFAULT.device,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --out, with its own settings")
    ] = False,
) -> None:
    """Train a sparse mixture with a defence; the run's folder can be resumed and exported."""
    given = {k: v for k, v in locals().items() if k in FitSettings.model_fields}
    run = Run.open(out) if resume and (out / "run.json").exists() else None
    settings = (
        run.record.settings
        if run
        else settings_from(given | {"eps": eps / 255, "blocks": blocks.split(","), "init": init or ()})
    )
    # Whatever can be wrong is found before the folder is made.
    find_method(settings.method)
    for kind in settings.kinds:
        find_expert(kind)
    require_device(settings.device)
    clip_set = open_set(settings.data)
    if run and clip_set.classes != run.record.classes:
        raise DataError(f"{settings.data}: its classes are no longer those of the run in {out}")
    if settings.init and run is None:
        start_from(list(build_model(settings.model(len(clip_set.classes))).experts), list(settings.init))
    console.print(f"reading {clip_set.name}")
    train = load_clips(clip_set.split("train"), settings.contract)
    val_set = clip_set.split("val")
    val = load_clips(val_set.take(min(settings.validate_clips, len(val_set)), settings.seed), settings.contract)
    if run is None:
        tools = {"python": platform.python_version(), "torch": version("torch")}
        run = Run.create(out, RunRecord(settings=settings, classes=clip_set.classes, tools=tools))
    screen = Screen(settings.epochs)
    trainer = Trainer(run, train, val, screen)
    with screen.progress:
        trainer.go()
    best = run.best
    typer.echo(f"best epoch {best['epoch']}: clean {best['clean']:.3f}, robust {best['robust']:.3f}, n={best['clips']}")
    typer.echo(f"next: python -m training export {out} --out BUNDLE")


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
