"""How much memory something takes, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT


def peak(before: str, action: str, *arguments: str) -> tuple[int, str]:
    """MiB that `action` takes at most beyond what `before` has taken, and what was printed.

    Both are statements of Python; `sys.argv[1:]` are the arguments.
    """
    code = f"""
import resource, sys
{before}
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {action}
    print("no error")
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    *said, taken = done.stdout.splitlines()
    return int(taken), "\n".join(said)
