"""Video files to measure on: genuine ones where they are at hand, else those of `motion`."""

from __future__ import annotations

import os
from pathlib import Path

from hardroute.runtime.datasets import open_set

_SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def video_sets() -> dict[str, list[Path]]:
    """Files by the name of their set. UCF-101 and HMDB-51 are looked for where the tests look for real video."""
    folder = Path(os.environ.get("HARDROUTE_SHARED_DATA", _SHARED)) / "originals"
    genuine = {name: sorted((folder / name).glob("*.avi")) for name in ("ucf101", "hmdb51")}
    found = {name: files for name, files in genuine.items() if files}
    return found or {"motion": [row.path for row in open_set("motion:train=0,val=0,test=8").rows[:8]]}
