"""`import hardroute`: the names that users script against, and what loading them costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

import hardroute
from tests.support.paths import ROOT

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


def test_type_checkers_see_what_loads() -> None:
    tree = ast.parse((ROOT / "hardroute" / "__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == hardroute._HOMES


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'hardroute' has no attribute 'Engin'"):
        hardroute.Engin  # noqa: B018 -- the look-up is what is tested
    assert set(NAMES) <= set(dir(hardroute))


def test_importing_the_package_loads_nothing_and_an_engine_no_torch() -> None:
    assert not loaded_after("import hardroute") & {"numpy", "cv2", "pydantic", "typer", "torch"}
    loaded = loaded_after("from hardroute import Engine, Hub, RouteLog, Watch, decode")
    assert "numpy" in loaded
    assert not loaded & {"torch", "onnxruntime", "onnx", "openvino", "gradio", "typer"}
