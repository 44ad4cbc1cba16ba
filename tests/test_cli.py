"""The command `hardroute`: its verbs, their help, and what it says where a library or a verb is missing."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hardroute import __version__, cli
from tests.support.paths import ROOT
from tests.test_architecture import imports, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What serving must do without, what takes long to load, and what only an answer needs.
HEAVY = ("torch", "onnxruntime", "openvino", "onnx", "gradio", "matplotlib", "fastapi", "uvicorn")
# Where the environment of the tests lacks a library, its name on the package index.
NOT_HERE = {"cuda": "cuda-bindings", "tensorrt": "tensorrt-cu13"}


def hardroute(*arguments: str, prelude: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, after some Python; tells which heavy libraries it loaded."""
    code = (
        f"import sys, atexit; sys.argv = ['hardroute', *sys.argv[1:]]\n{prelude}\n"
        f"atexit.register(lambda: print('loaded', *(name for name in {HEAVY!r} if sys.modules.get(name))))\n"
        "from hardroute.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def without(*packages: str) -> str:
    """Python after which these packages cannot be imported, as where they are not installed."""
    return (
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())"
    )


@pytest.mark.parametrize("verb", [None, *cli.VERBS])
def test_help_loads_nothing_heavy(verb: str | None) -> None:
    done = hardroute(*([verb] if verb else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: hardroute {verb or '[OPTIONS]'}" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded"


def test_the_list_of_verbs_says_what_each_does() -> None:
    told = hardroute("--help").stdout
    for name, verb in cli.VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.help)}$", told, re.MULTILINE)


@pytest.mark.parametrize("part", cli.PARTS)
def test_a_part_of_the_checkout_has_its_verbs(part: str) -> None:
    command = cli.PARTS[part].split()[1:]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    mine = [name for name, verb in cli.VERBS.items() if verb.part == part]
    assert done.stdout.startswith(f"Usage: {cli.PARTS[part]} [OPTIONS]")
    listed = re.findall(r"^  ([a-z]+) +\S", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == (mine if len(mine) > 1 else [])


def test_version() -> None:
    done = hardroute("--version")
    assert done.stdout.splitlines()[0] == f"hardroute {__version__}"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize(
    "command, said",
    [
        (["pedict"], "No such command 'pedict'"),
        (["predict", "motion", "clip.avi", "--lgo", "x"], "No such option: --lgo"),
        (["audit", "motion"], "Missing option '--data'"),
        (["serve", "motion", "--port", "99999"], "--port"),
    ],
)
def test_a_misspelt_command_says_so_and_ends_with_2(command: list[str], said: str) -> None:
    done = hardroute(*command)
    assert done.returncode == 2
    usage, hint, *error = [line for line in done.stderr.splitlines() if line.strip()]
    assert usage.startswith("Usage: hardroute") and "--help" in hint
    assert len(error) == 1 and said in error[0]


@pytest.mark.parametrize(
    "package, extra, command",
    [
        ("torch", "train", ["audit", "models/zoo/motion", "--data", "motion:train=0,val=0,test=1"]),
        ("jinja2", "train", ["audit", "models/zoo/motion", "--data", "motion:train=0,val=0,test=1"]),
        ("torch", "train", ["fit", "--data", "motion:train=1,val=1,test=1"]),
        ("torch", "train", ["compare", "--data", "motion:train=1,val=1,test=1", "--method", "plain"]),
        ("gradio", "demo", ["page", "--bundle", "models/zoo/motion"]),
        ("torch", "train", ["page", "--bundle", "models/zoo/motion"]),
        ("uvicorn", "serve", ["serve", "models/zoo/motion", "--port", "0"]),
        ("fastapi", "serve", ["serve", "models/zoo/motion", "--port", "0"]),
        ("prometheus_client", "serve", ["serve", "models/zoo/motion", "--port", "0"]),
    ],
)
def test_a_missing_extra_is_one_line(package: str, extra: str, command: list[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")] if command[0] not in ("page", "serve") else []
    done = hardroute(*command, *out, prelude=without(package))
    assert done.returncode == 2
    assert done.stderr == f"error: {command[0]} needs {package}: pip install 'hardroute[{extra}]'\n"


@pytest.mark.parametrize("part", ["audit", "training", "app.py"])
def test_a_part_of_the_checkout_says_so_as_well(part: str) -> None:
    arguments = {
        "audit": ["models/zoo/motion", "--data", "motion:train=0,val=0,test=1"],
        "training": ["fit", "--data", "motion:train=1,val=1,test=1", "--out", "/nonexistent"],
        "app.py": [],
    }[part]
    run = f"runpy.run_path({part!r}, run_name='__main__')"
    code = f"import runpy, sys; sys.argv = [{part!r}, *sys.argv[1:]]\n{without('torch', 'gradio')}\n{run}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert " needs " in done.stderr


@pytest.mark.parametrize("name", ["hardroute.runtime.nothing", "torch.nothing", "nothing", None])
def test_a_bug_of_our_own_keeps_its_traceback(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(verb: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cli, "load", broken)
    monkeypatch.setattr(sys, "argv", ["hardroute", "info", "motion"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


distributions = functools.cache(importlib.metadata.packages_distributions)


def distribution(package: str) -> str:
    """The name under which a package is installed."""
    found = distributions().get(package) or [NOT_HERE[package]]
    return canonical(found[0])


def canonical(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[(]", requirement)[0].lower().replace("_", "-")


def brought_by(extra: str) -> set[str]:
    """The distributions that an extra names, and those that these need."""
    named = {canonical(requirement) for requirement in PROJECT["optional-dependencies"][extra]}
    installed = {canonical(found.metadata["Name"]) for found in importlib.metadata.distributions()}
    return named | {canonical(need) for name in named & installed for need in importlib.metadata.requires(name) or ()}


def test_every_library_that_the_code_imports_is_always_there_or_brought_by_an_extra() -> None:
    always = {canonical(requirement) for requirement in PROJECT["dependencies"]}
    ours = {"hardroute"} | set(sys.stdlib_module_names)
    imported = {name.partition(".")[0] for _, _, tree in modules(ROOT) for name in imports(tree)} - ours
    assert {"numpy", "torch", "gradio"} <= imported
    assert {name for name in imported if distribution(name) not in always} <= set(cli.EXTRAS)


@pytest.mark.parametrize("package", cli.EXTRAS)
def test_an_extra_brings_what_is_said_of_it(package: str) -> None:
    assert distribution(package) in brought_by(cli.EXTRAS[package])


def test_every_library_of_an_extra_has_its_line() -> None:
    known = {distribution(package) for package in cli.EXTRAS}
    # `gpu` brings the same module as `cpu`; `dev` is not for users.
    extras = {name: needs for name, needs in PROJECT["optional-dependencies"].items() if name not in ("gpu", "dev")}
    named = {canonical(requirement) for needs in extras.values() for requirement in needs} - {"hardroute"}
    assert named <= known
