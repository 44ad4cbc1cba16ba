"""One field is one option: names, help, defaults and bounds come from the settings, and what is given ends up there."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from hardroute.runtime.cli.from_settings import Options, with_settings
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.settings import Settings
from tests.support.paths import ROOT


class Oven(Settings):
    what: ClassVar[str] = "oven"

    max_heat: Annotated[int, Field(ge=1, le=300)] = Field(180, description="Degrees.")
    minutes: Annotated[float, Field(gt=0)] | None = Field(None, description="Until it is done; default: by the nose.")
    mode: Literal["air", "grill"] = Field("air", description="Where the heat comes from.")
    light: bool = Field(False, description="Look at it.")
    weight: Annotated[int, Field(ge=1)] = Field(2000, description="Kilograms of dough.")
    secret: str | None = Field(None, repr=False)


made: list[Oven] = []


@with_settings
def bake(
    *,
    cake: Annotated[str, typer.Argument()],
    oven: Annotated[Oven, Options("oven_", names={"light": "lamp"}, units={"weight": 1000}, without=("secret",))],
    spoon: Annotated[int, typer.Option(help="How large.")] = 1,
) -> None:
    """Bakes."""
    made.append(oven)
    typer.echo(f"{cake} {spoon}")


def invoke(*arguments: str) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(bake)
    made.clear()
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_every_field_is_an_option_with_its_help_default_and_bounds() -> None:
    shown = " ".join(invoke("--help").output.split())
    assert "--oven-max-heat <int> Degrees. [1<=x<=300] [default: 180]" in shown
    assert "--oven-minutes <float> Until it is done; default: by the nose. [x>0] --oven-mode" in shown
    assert "--oven-mode <str> Where the heat comes from. [default: air]" in shown
    assert "--lamp / --no-lamp Look at it." in shown
    assert "--oven-weight <int> Kilograms of dough. [default: 2]" in shown
    assert "secret" not in shown and "--spoon" in shown


def test_what_is_given_ends_up_in_the_settings() -> None:
    assert invoke("plum").output == "plum 1\n" and made == [Oven()]
    given = ("--oven-max-heat", "200", "--oven-minutes", "2.5", "--oven-mode", "grill", "--lamp", "--oven-weight", "3")
    assert invoke("plum", *given, "--spoon", "2").output == "plum 2\n"
    assert made == [Oven(max_heat=200, minutes=2.5, mode="grill", light=True, weight=3000)]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--oven-max-heat", "301"), "--oven-max-heat must be at most 300, got 301"),
        (("--oven-minutes", "nan"), "--oven-minutes must be "),
        (("--oven-mode", "fire"), "--oven-mode must be 'air' or 'grill', got 'fire'"),
    ],
)
def test_a_value_out_of_bounds_names_the_option(arguments: tuple[str, ...], says: str) -> None:
    done = invoke("plum", *arguments)
    assert isinstance(done.exception, HardrouteError) and str(done.exception).startswith(says)
    assert made == []


@pytest.mark.parametrize("verb", ["serve", "stream", "predict", "log"])
def test_help_loads_nothing_heavy(verb: str) -> None:
    code = f"""
import sys
sys.argv = ["hardroute", "{verb}", "--help"]
from hardroute.cli import main
try: main()
except SystemExit: pass
print([name for name in ("onnxruntime", "openvino", "fastapi", "uvicorn", "torch", "tensorrt") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
