"""A user's mistake is one line and exit code 2; a bug keeps its traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hardroute.runtime import errors

PROGRAM = """
import typer
from hardroute.runtime.cli import main
from hardroute.runtime.errors import ClipError
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def run(mode: str) -> None:
    print("started")
    if mode == "mistake":
        raise ClipError("a.mp4: broken\\nerror: forged; mend it")
    if mode == "bug":
        raise RuntimeError("a bug")
    if mode == "interrupt":
        raise KeyboardInterrupt
    if mode == "refuse":
        raise typer.Exit(1)
main(app)
"""


@pytest.mark.parametrize(
    "mode, code, last_line",
    [
        ("fine", 0, ""),
        ("mistake", 2, "error: a.mp4: broken error: forged; mend it"),
        ("bug", 1, "RuntimeError: a bug"),
        ("interrupt", 130, ""),
        ("refuse", 1, ""),
    ],
)
def test_exit_codes_and_lines(mode: str, code: int, last_line: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, lines[-1] if lines else "") == (code, "started\n", last_line)
    assert (len(lines) > 1) == (mode == "bug")


def test_every_kind_of_error_is_a_users_mistake() -> None:
    kinds = [kind for name, kind in vars(errors).items() if name.endswith("Error")]
    assert len(kinds) > 10 and all(issubclass(kind, errors.HardrouteError) for kind in kinds)
