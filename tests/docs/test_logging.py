"""docs/logging.md is true: hardroute is silent until it is configured, and then speaks as its example shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support.paths import DOCS, ROOT

TEXT = (DOCS / "logging.md").read_text(encoding="utf-8")
SPEAK = "import hardroute, logging; logging.getLogger('hardroute.runtime.watch').warning('heard')"


def stderr_of(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    ).stderr


def test_silent_until_configured() -> None:
    assert stderr_of(SPEAK) == ""


def test_the_example_makes_it_speak() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    quiet = SPEAK.replace("runtime.watch", "runtime.streams.hub")
    said = stderr_of(f"{example}\n{SPEAK}\n{quiet}")
    assert re.fullmatch(r"\S+ \S+ WARNING hardroute\.runtime\.watch: heard\n", said)
