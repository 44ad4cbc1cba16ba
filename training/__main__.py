"""`python -m training fit` hardens a model; `python -m training export` turns a run into a bundle."""

from pathlib import Path
from typing import Annotated, Any

import typer

from audit.policy import Policy
from runtime.errors import main
from training.compare import compare, table
from training.export import export_bundle
from training.fitting import fit_run
from training.options import with_settings
from training.run import Run, write_text
from training.settings import settings_from
from training.team import Team

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
        run = fit_run(settings, out, team, run)
        if not team.leads:
            return
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


@app.command("compare")
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
    typer.echo(f"written: {out / 'compare.json'}, {out / 'compare.md'}")


if __name__ == "__main__":
    main(app)
