"""`hardroute fit`, `export`, `compare` and `evaluate`. What a verb needs loads when it runs, not for its help."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hardroute.runtime.clips import MAX_CLIPS
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import write_whole
from hardroute.training.options import with_settings
from hardroute.training.settings import settings_from


@with_settings
def fit(
    data: Annotated[str, typer.Option(help="labelled set: a folder with manifest.csv, or motion")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    given: dict[str, Any],
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --out; settings may be left out, but not be others")
    ] = False,
) -> None:
    """Train a model with a defence; the run's folder can be resumed and exported. Runs under torchrun, too."""
    begun = (out / "run.json").exists()
    settings = settings_from({"data": data, **given}, "--")
    if begun and not resume:
        raise DataError(f"{out} holds a run already: continue it with --resume, or choose another --out")
    from hardroute.training.loop import ProcessGroup, fit_run
    from hardroute.training.run import Run

    run = Run.open(out) if begun else None
    if run:  # what is not said again stays as it is
        settings = settings_from({**run.record.settings.model_dump(), "data": data, **given}, "--")
    with ProcessGroup.join(settings.device) as processes:
        run = fit_run(settings, out, processes, run)
        if not processes.is_main:
            return
    best = run.best
    typer.echo(f"best epoch {best.epoch}: clean {best.clean:.3f}, robust {best.robust:.3f}, n={best.clips}")
    typer.echo(f"next: hardroute export {out} --out BUNDLE")


def export(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    out: Annotated[Path, typer.Option(help="folder of the bundle; must not exist")],
    single: Annotated[bool, typer.Option("--single", help="also compose moe.onnx, routing inside the graph")] = False,
    probes: Annotated[int, typer.Option(help="clips whose expected outputs travel with the bundle", min=1, max=64)] = 8,
    as_trained: Annotated[bool, typer.Option("--as-trained", help="leave the size of the router's scores")] = False,
) -> None:
    """Turn a run's best weights into a bundle that runtime serves and audit attacks."""
    from hardroute.training.export import export_bundle
    from hardroute.training.run import Run

    bundle = export_bundle(Run.open(run), out, single=single, probes=probes, as_trained=as_trained)
    typer.echo(f"{out}: {len(bundle.manifest.experts)} experts, digest {bundle.digest}")


@with_settings
def compare_methods(
    data: Annotated[str, typer.Option(help="labelled set: a folder with manifest.csv, or motion")],
    out: Annotated[Path, typer.Option(help="folder for runs, bundles, audits and the table")],
    given: dict[str, Any],
    method: Annotated[list[str], typer.Option(help="a defence; repeat the option for each")],
    seed: Annotated[list[int] | None, typer.Option(help="a seed; repeat the option for each")] = None,
    reference: Annotated[str, typer.Option(help="--epochs is this method's; the others get equal compute")] = "at-m",
    policy: Annotated[
        str, typer.Option(help="TOML file, or a policy that audit ships: attacks and clips")
    ] = "standard",
) -> None:
    """Train methods at equal training compute, audit each, put them into one table. Goes on where it was cut short."""
    asked = {"data": data, **given}
    chosen = [settings_from({**asked, "method": name, "seed": n}, "--") for n in seed or [0] for name in method]
    equal_to = settings_from({**asked, "method": reference}, "--")
    from hardroute.audit.policy import Policy
    from hardroute.training.comparison import compare, draw, table

    rows = compare(chosen, equal_to, out, Policy.load(policy), typer.echo)
    write_whole(out / "compare.md", table(rows))
    typer.echo(table(rows))
    draw(out / "compare.png", rows)
    typer.echo(f"written: {out / 'compare.json'}, {out / 'compare.md'}, {out / 'compare.png'}")


def evaluate(
    bundle: Annotated[str, typer.Argument(help="folder of a bundle, or a shipped one's name")],
    data: Annotated[str, typer.Option(help="labelled set of the bundle's classes")],
    split: Annotated[str, typer.Option(help="part of the set")] = "test",
    clips: Annotated[int, typer.Option(help="clips of each video, spread over it", min=1, max=MAX_CLIPS)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """How often a bundle is right about whole videos, unattacked, by the mean over several clips of each."""
    from hardroute.runtime.datasets import open_set
    from hardroute.runtime.inference import Engine
    from hardroute.training.console import reading
    from hardroute.training.video_accuracy import evaluate_videos

    with Engine.load(bundle) as engine, reading() as show:
        found = evaluate_videos(engine, open_set(data).split(split), clips, show(split))
    if as_json:
        plain = {"videos": found["videos"].as_dict(), "first": found["first"].as_dict()}
        typer.echo(json.dumps({**found, **plain}))
        return
    if clips > 1:
        typer.echo(f"by the mean of {clips} clips: {found['videos']}")
    typer.echo(f"by the first clip, the one that an audit judges: {found['first']}")
    typer.echo(f"load of the experts: {' '.join(f'{share:.2f}' for share in found['load'])}")
