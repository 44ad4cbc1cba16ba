"""`python -m tests.measure.secrets BUNDLE`: addresses with odd passwords, valid and mistyped; where do they turn up?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from hardroute.runtime.cli import main
from tests.support.paths import ROOT

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
SECRET: Final = "hunTer2"  # noqa: S105 -- of nobody
# Nobody listens on port 9; each password holds what a reader of addresses may stumble over.
ODD: Final = (
    *(
        "",
        "/",
        "#",
        "?",
        "@",
        ":",
        "%2F",
        "%23",
        "%40",
        "&",
        "=",
        "+",
        ";",
        ",",
        "'",
        '"',
        "[",
        "]",
        "\\",
        "|",
        "~",
        "é",
    ),
)
VALID: Final = tuple(
    f"rtsp://admin:{odd}{SECRET}{odd}@127.0.0.1:9/live" for odd in ("", "%2F", "%23", "%40", "&", "=", "+", "~")
)
MISTYPED: Final = (
    *(f"rtsp://admin:{odd}{SECRET}@127.0.0.1:9/live" for odd in ODD if odd),
    f"rtsp:/admin:{SECRET}@127.0.0.1:9/live",
    f"rtsp//admin:{SECRET}@127.0.0.1:9/live",
    f"admin:{SECRET}@127.0.0.1:9/live",
    f"http://127.0.0.1:9/video?user=admin&password={SECRET}",
    f"http://127.0.0.1:9/token={SECRET}/video",
    f"http://127.0.0.1:9/video?key={SECRET}#x",
    f"rtps://admin:{SECRET}@127.0.0.1:9/live",
)


@app.command()
def command(bundle: Annotated[str, typer.Argument(help="Bundle to start with.")] = "motion") -> None:
    """Starts `stream` on each address, read from a file. Exit code 1: a secret turned up."""
    found = 0
    addresses = (*VALID, *MISTYPED)
    with tempfile.TemporaryDirectory() as folder:
        for number, address in enumerate(addresses):
            listed, log = Path(folder) / "cameras", Path(folder) / f"log-{number}.jsonl"
            listed.write_text(address + "\n", encoding="utf-8")
            words = ["stream", bundle, f"@{listed}", "--log", str(log), "--timeout", "1", "--reconnect-attempts", "0"]
            child = subprocess.Popen(
                [sys.executable, "-m", "hardroute", *words, "--threads", "1"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            seen = b""
            while child.poll() is None:
                seen += _command_lines()
                time.sleep(0.1)
            said = child.communicate()[0]
            written = log.read_bytes() if log.exists() else b""
            places = {"output": said, "log": written, "process list": seen}
            leaks = [place for place, text in places.items() if SECRET.encode() in text]
            found += bool(leaks)
            last = said.decode(errors="replace").strip().splitlines()
            typer.echo(f"{'LEAK in ' + ', '.join(leaks) if leaks else 'clean'}: {last[-1] if last else 'no word'}")
    typer.echo(f"{len(addresses)} addresses, {found} with a secret that turned up")
    if found:
        raise typer.Exit(1)


def _command_lines() -> bytes:
    text = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        text += line + b"\n"
    return text


if __name__ == "__main__":
    main(app)
