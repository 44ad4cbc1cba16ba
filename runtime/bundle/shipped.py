"""The bundles that come with the package, by name."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from hardroute.runtime.bundle.sealed_files import MANIFEST
from hardroute.runtime.errors import BundleError


def find_bundle(spec: str | Path) -> Path:
    """The folder of a bundle.

    Args:
        spec: a folder; or text without a separator that names a shipped bundle, such as "motion". A `Path` is never a
            name, because it forgets that it was written "./motion".

    Raises:
        BundleError: no such folder and no such name; or a shipped bundle's name beside a bundle of that name in the
            working directory, where either could be meant.
    """
    folder, shipped = Path(spec), _shipped()
    if isinstance(spec, str) and spec in shipped:
        if not os.path.lexists(folder / MANIFEST):
            return shipped[spec]
        raise BundleError(
            f"{spec}: the name of a shipped bundle, and there is another here; write .{os.sep}{spec} for the one here, "
            f"or {shipped[spec]} for the shipped one"
        )
    if not folder.is_dir():
        names = ", ".join(shipped) or "none here"
        raise BundleError(f"{spec}: no such bundle folder; give one, or the name of a shipped bundle: {names}")
    return folder


def _shipped() -> dict[str, Path]:
    # By the package's name: this floor must not import the one that the bundles lie on.
    zoo = Path(str(files("hardroute"))) / "models" / "zoo"
    return {manifest.parent.name: manifest.parent for manifest in sorted(zoo.glob(f"*/{MANIFEST}"))}
