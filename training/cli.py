"""`python -m training fit` hardens a model; `python -m training export` turns a run into a bundle."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hardroute.audit.policy import Policy
from hardroute.runtime.clips import MAX_CLIPS
from hardroute.runtime.datasets import open_set
from hardroute.runtime.inference import Engine
from hardroute.training.comparison.chart import draw
from hardroute.training.comparison.compare import compare, table
from hardroute.training.console import reading
from hardroute.training.export.bundle import export_bundle
from hardroute.training.loop.distributed import Team
from hardroute.training.loop.fit import fit_run
from hardroute.training.loop.run import Run, write_text
from hardroute.training.options import with_settings
from hardroute.training.settings import settings_from
from hardroute.training.video_accuracy import evaluate_videos


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
        run = fit_run(settings, out, team, run)
        if not team.leads:
            return
    best = run.best
    typer.echo(f"best epoch {best['epoch']}: clean {best['clean']:.3f}, robust {best['robust']:.3f}, n={best['clips']}")
    typer.echo(f"next: python -m training export {out} --out BUNDLE")


def export(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    out: Annotated[Path, typer.Option(help="folder of the bundle; must not exist")],
    single: Annotated[bool, typer.Option("--single", help="also compose moe.onnx, routing inside the graph")] = False,
    probes: Annotated[int, typer.Option(help="clips whose expected outputs travel with the bundle", min=1, max=64)] = 8,
    as_trained: Annotated[bool, typer.Option("--as-trained", help="leave the size of the router's scores")] = False,
) -> None:
    """Turn a run's best weights into a bundle that runtime serves and audit attacks."""
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
    chosen = [settings_from({"data": data, **given, "method": name, "seed": n}) for n in seed or [0] for name in method]
    rules = Policy.load(policy)
    rows = compare(chosen, settings_from({"data": data, **given, "method": reference}), out, rules, typer.echo)
    write_text(out / "compare.md", table(rows))
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
    with Engine.load(bundle) as engine, reading() as show:
        found = evaluate_videos(engine, open_set(data).split(split), clips, show(split))
    if as_json:
        plain = {name: value.as_dict() if name in ("videos", "first") else value for name, value in found.items()}
        typer.echo(json.dumps(plain))
        return
    if clips > 1:
        typer.echo(f"by the mean of {clips} clips: {found['videos']}")
    typer.echo(f"by the first clip, the one that an audit judges: {found['first']}")
    typer.echo(f"load of the experts: {' '.join(f'{share:.2f}' for share in found['load'])}")
