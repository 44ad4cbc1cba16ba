"""A set by the text that names it on a command line or in settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hardroute.runtime.datasets import motion
from hardroute.runtime.datasets.dataset import ClipSet
from hardroute.runtime.datasets.manifest_csv import read_manifest
from hardroute.runtime.datasets.official import KINDS, open_official


def open_set(spec: str | Path, progress: Callable[[int, int], None] | None = None) -> ClipSet:
    """Open a folder with a manifest.csv, `ucf101:DIR` or `hmdb51:DIR` (`hardroute.runtime.datasets.official`), or the
    procedural set: "motion", or what differs from it, as in "motion:seed=1,test=5".

    The counts are clips per class; the motion set is rendered into a cache folder on first use. Raises
    DataError.
    """
    text = str(spec)
    kind, _, _ = text.partition(":")
    if kind == "motion":
        return read_manifest(motion.cached(text, progress), name=text)
    if kind in KINDS:
        return open_official(text)
    return read_manifest(Path(text))
