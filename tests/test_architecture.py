"""The rules that keep the house standing: floors, a torch-free runtime, no pickle, small modules.

Each rule is a function from a folder to its violations, so that each can be shown to fail on a planted file.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FLOORS = ("runtime", "models", "audit", "training", "app")  # each stands on those before it
# A network knows what a clip looks like, and how a user's mistake is reported; not how a bundle is served.
MODELS_MAY_IMPORT = ("hardroute.runtime.clips", "hardroute.runtime.errors")
MAX_LINES = 220
# Modules whose files can carry code.
PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
# Published weights come as torch files; read with weights_only, whatever would run code is refused.
TENSORS_ONLY = "hardroute.models.published"


def modules(root: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """Yields (floor, dotted module name, syntax tree) of every module under `root`."""
    paths = [path for floor in FLOORS[:-1] for path in sorted((root / floor).rglob("*.py"))]
    for path in [*paths, root / "app.py"]:
        if path.is_file():
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield name.split(".")[0], name, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: str, tree: ast.Module, root: Path) -> Iterator[str]:
    """Yields the dotted name of all that the module imports anywhere, `import_module("x")` included."""
    is_package = (root / Path(*module.split(".")) / "__init__.py").is_file()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            # A computed name could hide any import from this test, so it counts as one that nothing may make.
            constant = isinstance(first, ast.Constant) and isinstance(first.value, str)
            yield str(first.value) if constant else "?"  # type: ignore[union-attr]


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def upward_imports(root: Path) -> list[str]:
    bad = []
    for floor, module, tree in modules(root):
        for name in imports(module, tree, root):
            target = name.split(".")[0]
            if target in FLOORS and FLOORS.index(target) > FLOORS.index(floor):
                bad.append(f"{module} imports {name}: {floor} stands below {target}")
            elif floor == "models" and target == "runtime" and not name.startswith(MODELS_MAY_IMPORT):
                bad.append(f"{module} imports {name}: models may use only {' and '.join(MODELS_MAY_IMPORT)}")
    return bad


def torch_in_runtime(root: Path) -> list[str]:
    return [
        f"{module} imports {name}"
        for floor, module, tree in modules(root)
        if floor == "runtime"
        for name in imports(module, tree, root)
        if name == "?" or name.split(".")[0] in ("torch", "torchvision")
    ]


def pickle_uses(root: Path) -> list[str]:
    bad = []
    for _, module, tree in modules(root):
        bad += [
            f"{module} imports {name}"
            for name in imports(module, tree, root)
            if name.split(".")[0] in PICKLES or name in ("torch.load", "torch.save")
        ]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            tensors_only = (
                module == TENSORS_ONLY
                and call == "torch.load"
                and any(
                    keyword.arg == "weights_only" and getattr(keyword.value, "value", None) is True
                    for keyword in node.keywords
                )
            )
            if tensors_only:
                continue
            if call in ("torch.load", "torch.save") or call.split(".")[-1] in ("read_pickle", "to_pickle"):
                bad.append(f"{module}:{node.lineno} calls {call}")
            for keyword in node.keywords:
                # numpy's own default is False: any other value, or a computed one, opens the door.
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not allowed:
                    bad.append(f"{module}:{node.lineno} allows pickle in {call}")
    return bad


def long_modules(root: Path) -> list[str]:
    bad = []
    for _, module, _ in modules(root):
        stem = root.joinpath(*module.split("."))
        path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            bad.append(f"{module} has {lines} lines, more than {MAX_LINES}: it holds more than one idea")
    return bad


RULES: tuple[Callable[[Path], list[str]], ...] = (upward_imports, torch_in_runtime, pickle_uses, long_modules)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


def test_the_rules_see_the_modules() -> None:
    assert {floor for floor, _, _ in modules(ROOT)} == set(FLOORS)


@pytest.mark.parametrize(
    "rule, file, source",
    [
        (upward_imports, "runtime/engine.py", "import hardroute.audit\n"),
        (upward_imports, "runtime/engine.py", "def lazily():\n    from hardroute.models import VideoMoE\n"),
        (upward_imports, "runtime/clips/decode.py", "from ...training import fit\n"),
        (upward_imports, "audit/gate.py", "import importlib\nimportlib.import_module('training.fit')\n"),
        (upward_imports, "training/fit.py", "import app\n"),
        (upward_imports, "models/moe.py", "from hardroute import Engine\n"),
        (upward_imports, "models/moe.py", "import hardroute.runtime.inference.engine\n"),
        (torch_in_runtime, "runtime/engine.py", "import torch\n"),
        (torch_in_runtime, "runtime/engine.py", "def lazily():\n    import torch.nn as nn\n"),
        (torch_in_runtime, "runtime/engine.py", "def lazily(name):\n    return __import__(name)\n"),
        (
            torch_in_runtime,
            "runtime/clips/sets.py",
            "try:\n    from torch import nn\nexcept ImportError: pass\n",
        ),
        (pickle_uses, "training/run.py", "import pickle\n"),
        (pickle_uses, "training/run.py", "from torch import load\n"),
        (pickle_uses, "models/moe.py", "import torch\ntorch.load('x', weights_only=True)\n"),
        (pickle_uses, "models/published.py", "import torch\ntorch.load('x', weights_only=False)\n"),
        (pickle_uses, "models/published.py", "import torch\ntorch.load('x')\n"),
        (pickle_uses, "runtime/bundle.py", "import numpy as np\nnp.load('x', allow_pickle=True)\n"),
        (pickle_uses, "app.py", "import numpy as np\nnp.load('x', allow_pickle=not False)\n"),
        (long_modules, "audit/gate.py", "x = 1\n" * (MAX_LINES + 1)),
        (long_modules, "audit/__init__.py", "x = 1\n" * (MAX_LINES + 1)),
    ],
)
def test_rule_finds_what_breaks_it(tmp_path: Path, rule: Callable[[Path], list[str]], file: str, source: str) -> None:
    for package in ("runtime/clips", "models", "audit", "training"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / file).write_text(source)
    assert len(rule(tmp_path)) == 1


@pytest.mark.parametrize(
    "file, source",
    [
        (
            "training/fit.py",
            "from hardroute.audit.attacks import ATTACKS\nfrom models import VideoMoE\nimport runtime\n",
        ),
        ("models/moe.py", "import torch\nfrom hardroute.runtime.clips import ClipContract\n"),
        ("models/published.py", "import torch\ntorch.load('x', weights_only=True)\n"),
        ("runtime/bundle.py", "import numpy as np\nfrom . import clips\nnp.load('x', allow_pickle=False)\n"),
        ("app.py", "from hardroute.audit.attacks import ATTACKS\nfrom hardroute.training.methods import METHODS\n"),
        ("audit/gate.py", "x = 1\n" * MAX_LINES),
    ],
)
def test_rules_let_good_code_pass(tmp_path: Path, file: str, source: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(source)
    assert [violation for rule in RULES for violation in rule(tmp_path)] == []


def test_importing_runtime_loads_neither_torch_nor_an_inference_library() -> None:
    """What the syntax trees cannot see: a third-party package that pulls torch in."""
    heavy = ("torch", "onnx", "onnxruntime", "gradio", "matplotlib")
    code = f"import sys, runtime, hardroute.runtime.clips; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
