"""The command `hardroute`: every verb, each loaded when it is asked for.

`python -m runtime`, `-m training`, `-m audit` and `app.py` in a checkout are parts of it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, Final, NamedTuple, NoReturn

import typer

from hardroute import __version__
from hardroute.runtime import cli
from hardroute.runtime.errors import HardrouteError


class Verb(NamedTuple):
    """Where a verb lives and what it does in a line; its module loads with the verb and not with the list of them.

    Attributes:
        part: what of the checkout has it, too: a key of `PARTS`.
        home: module below `hardroute` and name of a function or a typer app in it.
    """

    part: str
    home: str
    help: str


VERBS: Final = {
    "info": Verb("runtime", "runtime.cli.info:info", "Verify a bundle and say what is in it."),
    "predict": Verb("runtime", "runtime.cli.predict:predict", "Classify videos."),
    "stream": Verb("runtime", "runtime.cli.stream:stream", "Classify cameras and long videos, window by window."),
    "serve": Verb("runtime", "runtime.cli.serve:serve", "Answer clips over HTTP."),
    "log": Verb("runtime", "runtime.cli.log:app", "Check a routing log, and say what is in it."),
    "render": Verb("runtime", "runtime.cli.render:render", "Render a procedural set as video files."),
    "sign": Verb("runtime", "runtime.cli.sign:sign", "Sign a bundle's certificate and files."),
    "verify": Verb("runtime", "runtime.cli.verify:verify", "Say who signed a bundle, and whether a trust accepts it."),
    "fit": Verb("training", "training.cli:fit", "Train a model with a defence."),
    "export": Verb("training", "training.cli:export", "Turn a training run into a bundle."),
    "evaluate": Verb("training", "training.cli:evaluate", "How often a bundle is right about whole videos."),
    "compare": Verb("training", "training.cli:compare_methods", "Train methods at equal compute and audit each."),
    "audit": Verb("audit", "audit.cli:audit", "Attack a bundle, and decide by a policy whether it may be served."),
    "page": Verb("app", "cli:page", "Show a bundle in the browser."),
}

# Part of the checkout -> what a user types to run it.
PARTS: Final = {
    "runtime": "python -m runtime",
    "training": "python -m training",
    "audit": "python -m audit",
    "app": "python app.py",
}

# Imported package -> the extra that brings it. What every installation has is not here.
EXTRAS: Final = {
    package: extra
    for extra, packages in {
        "cpu": ("onnxruntime",),
        "openvino": ("openvino",),
        "tensorrt": ("cuda", "tensorrt"),
        "sign": ("model_signing", "OpenSSL"),
        "serve": ("fastapi", "prometheus_client", "python_multipart", "starlette", "uvicorn"),
        "train": (
            "jinja2",
            "markupsafe",
            "matplotlib",
            "onnx",
            "onnxscript",
            "rich",
            "safetensors",
            "tensorboardX",
            "torch",
        ),
        "demo": ("gradio", "PIL"),
    }.items()
    for package in packages
}


class _Verbs(typer.core.TyperGroup):
    """A group that knows its commands' names and lines without loading them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, verb in VERBS.items() if ctx.obj in (None, verb.part)]

    def get_command(self, ctx: Any, name: str) -> Any:
        return load(name) if name in self.list_commands(ctx) else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name].help) for name in self.list_commands(ctx)])


def load(name: str) -> Any:
    """The command of that verb."""
    module, _, attribute = VERBS[name].home.partition(":")
    found = getattr(importlib.import_module(f"hardroute.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command(name)(found)
    return typer.main.get_command(single)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hardroute {__version__}")
        raise typer.Exit


app: Final = typer.Typer(
    cls=_Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def hardroute(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Harden, audit and serve routed video classifiers. `hardroute VERB --help` says more of each."""


def page(
    bundle: Annotated[str, typer.Option(help="Bundle to show: its folder, or the name of a shipped one.")] = "motion",
    samples: Annotated[str, typer.Option(help="Labelled set to offer.")] = "motion:train=0,val=0,test=1",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    trust: cli.TrustFile = None,
) -> None:
    """Show a bundle in the browser."""
    # Its libraries take seconds to import.
    from hardroute.app import serve

    serve(bundle, samples, host, port, cli.load_trust(trust))


def main(part: str | None = None) -> NoReturn:
    """Runs the command line and exits.

    Args:
        part: a key of `PARTS`: only its verbs; a part of one verb is that verb.
    """
    mine = [name for name, verb in VERBS.items() if part in (None, verb.part)]

    def run() -> None:
        name = PARTS[part] if part else "hardroute"
        try:
            command = load(mine[0]) if len(mine) == 1 else typer.main.get_command(app)
            command(prog_name=name, obj=part)
        except ModuleNotFoundError as error:
            # By its exact name: a module that is missing in a library that is there is a bug, and keeps its traceback.
            extra = EXTRAS.get(error.name or "")
            if extra is None:
                raise
            # No option stands before a verb but those that end the command.
            verb = mine[0] if len(mine) == 1 else next((word for word in sys.argv[1:] if word in mine), name)
            raise HardrouteError(f"{verb} needs {error.name}: pip install 'hardroute[{extra}]'") from None

    cli.main(run)


if __name__ == "__main__":
    main()
