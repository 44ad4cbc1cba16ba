"""`import hardroute`: the names that users script against, and what loading them costs."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hardroute
from tests.support.paths import ROOT

FLOORS = ("runtime", "models", "audit", "training")
NAMES = [name for name in hardroute.__all__ if name != "__version__"]


def loaded_after(code: str) -> set[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_on_the_face_of_its_home(name: str) -> None:
    value = getattr(hardroute, name)
    home = sys.modules[hardroute._HOMES[name]]
    assert getattr(home, name) is value
    # A module that lies directly in a floor is its own face.
    assert name in getattr(home, "__all__", [name])


def lazy_faces() -> list[str]:
    """The packages whose names load on first use."""
    faces = [path for floor in ("hardroute", *FLOORS) for path in (ROOT / floor).rglob("__init__.py")]
    lazy = [path.parent for path in faces if "_HOMES" in path.read_text()]
    return [
        ".".join(("hardroute", *path.relative_to(ROOT).parts)).replace("hardroute.hardroute", "hardroute")
        for path in lazy
    ]


@pytest.mark.parametrize("package", lazy_faces())
def test_type_checkers_and_contracts_see_what_loads(package: str) -> None:
    face = importlib.import_module(package)
    tree = ast.parse(Path(str(face.__file__)).read_text())
    typed = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        alias.name: node.module
        for block in typed
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == face._HOMES
    assert {*seen, "__version__"} == {*face.__all__, "__version__"}


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'hardroute' has no attribute 'Engin'"):
        hardroute.Engin  # noqa: B018 -- the look-up is what is tested
    assert set(NAMES) <= set(dir(hardroute))


def test_importing_the_package_loads_nothing_and_an_engine_no_torch() -> None:
    assert not loaded_after("import hardroute") & {"numpy", "cv2", "pydantic", "typer", "torch"}
    loaded = loaded_after("from hardroute import Engine, Hub, RouteLog, Watch, decode")
    assert "numpy" in loaded
    assert not loaded & {"torch", "onnxruntime", "onnx", "openvino", "gradio", "typer"}
