"""Makers of routing logs for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hardroute.runtime.routelog import SCHEMA, RouteLog, RouteRecord


def record(clip: str = "a.mp4", **changes: Any) -> RouteRecord:
    """An answer of expert 0 of two, with any field changed."""
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "time": "2026-11-03T10:15:02.482913+00:00",
        "clip": clip,
        "clip_sha256": "cd" * 32,
        "bundle_sha256": "ab" * 32,
        "label": "right",
        "probability": 0.871,
        "weights": [0.75, 0.25],
        "expert": 0,
        "margin": 0.5,
        "ms": {"decode": 3.1, "route": 0.5, "expert": 1.2},
    }
    return RouteRecord(**{**fields, **changes})


def write(path: Path, count: int, **options: Any) -> tuple[str, int]:
    """Appends records with clips "0", "1", ... and returns the head."""
    with RouteLog(path, **options) as log:
        for n in range(count):
            log.append(record(str(n)))
        return log.head, log.seq


def make_key(folder: Path, name: str = "log") -> tuple[Path, Path]:
    """A private key and its public one, made by openssl."""
    key, public = folder / f"{name}.key", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, timeout=60)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, timeout=60)
    return key, public


def family(path: Path) -> list[Path]:
    """The log's files as a person would list them, oldest first."""
    return [*sorted(path.parent.glob(f"{path.name}.{'[0-9]' * 12}")), path]
