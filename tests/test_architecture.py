"""The rules that keep the house standing: the import contracts, a torch-free runtime, no pickle, small modules.

Who may import whom stands in pyproject.toml (`lint-imports`); here each contract is shown to fail. Each rule on syntax
trees is a function from a folder to its violations, so that each can be shown to fail on a planted file.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FLOORS = ("runtime", "models", "audit", "training")
MAX_LINES = 400
# Modules whose files can carry code.
PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
# Published weights come as torch files; read with weights_only, whatever would run code is refused.
TENSORS_ONLY = "models.published"


def modules(root: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Yields (dotted name in the checkout, file, syntax tree) of every module under `root`."""
    own = [path for path in (root / "hardroute").glob("*.py") if not path.is_symlink()]
    for path in [*own, root / "app.py", *(path for floor in FLOORS for path in (root / floor).rglob("*.py"))]:
        if path.is_file():
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield name, path, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module) -> Iterator[str]:
    """Yields the dotted name of all that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def hidden_imports(root: Path) -> list[str]:
    """Imports by a computed or relative name, which no contract sees.

    The command loads its verbs so, by a table; and a face may, in `__getattr__`: tests/test_public_names.py compares
    what it loads with what type checkers and contracts see.
    """
    bad = []
    for module, path, tree in modules(root):
        by_table = module.startswith("hardroute")
        face = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "__getattr__"]
        lazy = {id(node) for part in face for node in ast.walk(part)} if path.name == "__init__.py" else set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                bad.append(f"{module}:{node.lineno} imports by a relative name")
            if not isinstance(node, ast.Call) or by_table or id(node) in lazy:
                continue
            if ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
                name = node.args[0] if node.args else None
                third_party = isinstance(name, ast.Constant) and not str(name.value).startswith("hardroute")
                if not third_party:
                    bad.append(f"{module}:{node.lineno} imports {ast.unparse(node)}")
    return bad


def pickle_uses(root: Path) -> list[str]:
    bad = []
    for module, _, tree in modules(root):
        bad += [
            f"{module} imports {name}"
            for name in imports(tree)
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
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path, _ in modules(root)}
    return [
        f"{module} has {lines} lines, more than {MAX_LINES}: it holds more than one idea"
        for module, lines in lengths.items()
        if lines > MAX_LINES
    ]


RULES: tuple[Callable[[Path], list[str]], ...] = (hidden_imports, pickle_uses, long_modules)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


def test_the_rules_see_the_modules() -> None:
    assert {name.split(".")[0] for name, _, _ in modules(ROOT)} == {*FLOORS, "hardroute", "app"}


@pytest.mark.parametrize(
    "rule, file, source",
    [
        (hidden_imports, "runtime/clips/decode.py", "from ...training import fit\n"),
        (hidden_imports, "audit/gate.py", "import importlib\nimportlib.import_module('hardroute.training.fit')\n"),
        (hidden_imports, "audit/gate.py", "def __getattr__(name):\n    return __import__(name)\n"),
        (hidden_imports, "audit/__init__.py", "def lazily(name):\n    return __import__(name)\n"),
        (hidden_imports, "runtime/engine.py", "def lazily(name):\n    return __import__(name)\n"),
        (pickle_uses, "training/run.py", "import pickle\n"),
        (pickle_uses, "training/run.py", "from torch import load\n"),
        (pickle_uses, "models/moe.py", "import torch\ntorch.load('x', weights_only=True)\n"),
        (pickle_uses, "models/published.py", "import torch\ntorch.load('x', weights_only=False)\n"),
        (pickle_uses, "models/published.py", "import torch\ntorch.load('x')\n"),
        (pickle_uses, "runtime/bundle.py", "import numpy as np\nnp.load('x', allow_pickle=True)\n"),
        (pickle_uses, "app.py", "import numpy as np\nnp.load('x', allow_pickle=not False)\n"),
        (pickle_uses, "hardroute/cli.py", "import shelve\n"),
        (long_modules, "audit/gate.py", "x = 1\n" * (MAX_LINES + 1)),
        (long_modules, "audit/__init__.py", "x = 1\n" * (MAX_LINES + 1)),
    ],
)
def test_rule_finds_what_breaks_it(tmp_path: Path, rule: Callable[[Path], list[str]], file: str, source: str) -> None:
    plant(tmp_path, file, source)
    assert len(rule(tmp_path)) == 1


@pytest.mark.parametrize(
    "file, source",
    [
        ("models/published.py", "import torch\ntorch.load('x', weights_only=True)\n"),
        ("runtime/bundle.py", "import numpy as np\nnp.load('x', allow_pickle=False)\n"),
        ("runtime/backends/ort.py", "import importlib\nimportlib.import_module('tensorrt')\n"),
        ("models/__init__.py", "def __getattr__(name):\n    return __import__(name)\n"),
        ("hardroute/cli.py", "import importlib\ndef load(name):\n    return importlib.import_module(name)\n"),
        ("audit/gate.py", "x = 1\n" * MAX_LINES),
    ],
)
def test_rules_let_good_code_pass(tmp_path: Path, file: str, source: str) -> None:
    plant(tmp_path, file, source)
    assert [violation for rule in RULES for violation in rule(tmp_path)] == []


def plant(root: Path, file: str, source: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(source)


CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules, and nothing else, in a folder where a line may be planted."""
    root = tmp_path_factory.mktemp("house")
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, root / floor, ignore=shutil.ignore_patterns("zoo", "__pycache__"))
    shutil.copytree(ROOT / "hardroute", root / "hardroute", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", root)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def broken_contracts(root: Path) -> list[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment, check=False)
    told = dict(re.findall(r"^(.+?) (KEPT|BROKEN)", done.stdout, re.MULTILINE))
    assert list(told) == CONTRACTS, done.stdout + done.stderr
    return [name for name in CONTRACTS if told[name] == "BROKEN"]


def test_contracts_hold(house: Path) -> None:
    assert broken_contracts(house) == []


@pytest.mark.parametrize(
    "contract, file, line",
    [
        ("Each floor stands", "runtime/errors.py", "import hardroute.audit"),
        ("Each floor stands", "models/moe.py", "def lazily():\n    from hardroute.training import methods"),
        ("Each floor stands", "audit/policy.py", "from hardroute import app"),
        ("The public names", "audit/policy.py", "from hardroute import Engine"),
        ("No circles", "runtime/errors.py", "def lazily():\n    from hardroute.runtime.clips import Limits"),
        ("No circles", "models/router.py", "if False:\n    from hardroute.models.build import build_model"),
        ("Outside runtime", "audit/policy.py", "from hardroute.runtime.bundle.manifest import Manifest"),
        ("Outside runtime", "app.py", "import hardroute.runtime.clips.cage"),
        ("Outside models", "audit/policy.py", "from hardroute.models.experts.r3d import R3D18"),
        ("Outside audit", "training/methods.py", "from hardroute.audit.attacks.registry import ATTACKS"),
        ("Outside training", "app.py", "from hardroute.training.export.bundle import export_bundle"),
        ("Outside training", "hardroute/__init__.py", "from hardroute.training.export.bundle import export_bundle"),
        ("A network knows", "models/moe.py", "from hardroute.runtime.bundle import Bundle"),
        ("What serves", "runtime/errors.py", "def lazily():\n    from torch import nn"),
    ],
)
def test_contract_finds_what_breaks_it(house: Path, contract: str, file: str, line: str) -> None:
    text = (house / file).read_text()
    (house / file).write_text(f"{text}\n{line}\n")
    try:
        assert contract in " ".join(broken_contracts(house))
    finally:
        (house / file).write_text(text)


def test_importing_runtime_loads_neither_torch_nor_an_inference_library() -> None:
    """What the syntax trees cannot see: a third-party package that pulls torch in."""
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "gradio", "matplotlib")
    code = (
        "import importlib, pkgutil, sys, hardroute.runtime as runtime\n"
        "for module in pkgutil.walk_packages(runtime.__path__, 'hardroute.runtime.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
