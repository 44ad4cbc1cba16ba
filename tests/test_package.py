"""What is built and installed: one name, everything it needs, and no harm from what lies in the working directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hardroute import __version__
from tests.support.paths import ROOT

FLOORS = ("runtime", "models", "audit", "training")
BUILT_FROM = ("app.py", "hardroute", *FLOORS, "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def python(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Runs Python in `cwd`; with the modules in `path` before those of the environment."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    python("-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", *arguments, cwd=cwd)


def built(hook: str, checkout: Path, folder: Path) -> Path:
    """What the build backend makes of the checkout; no network, since it is installed here."""
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    python("-c", code, folder, cwd=checkout)
    (file,) = folder.glob("hardroute-*")
    return file


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root)
    return root


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("build_wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", site, wheel, cwd=site)
    return site


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A working directory of somebody who has chosen the names that our folders have."""
    for name in ("models", "audit", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not hardroute')\n")
    for name in ("runtime.py", "app.py", "cli.py"):
        (tmp_path / name).write_text("raise RuntimeError('not hardroute')\n")
    return tmp_path


def test_the_wheel_holds_one_package_and_all_that_lies_in_its_folders(wheel: Path) -> None:
    names = set(contents(wheel))
    assert {name.split("/")[0] for name in names} == {"hardroute", f"hardroute-{__version__}.dist-info"}
    files = {
        f"hardroute/{path.relative_to(ROOT)}"
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"hardroute/models/zoo/motion/manifest.json", "hardroute/audit/policies/standard.toml"} <= files
    own = {f"hardroute/{name}" for name in ("__init__.py", "__main__.py", "cli.py", "app.py", "py.typed")}
    assert {name for name in names if name.startswith("hardroute/")} == files | own


def test_the_source_archive_gives_the_same_wheel(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    for name in ("archive", "source", "wheel"):
        (tmp_path / name).mkdir()
    archive = built("build_sdist", checkout, tmp_path / "archive")
    shutil.unpack_archive(archive, tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = contents(built("build_wheel", source, tmp_path / "wheel"))
    first = contents(wheel)
    assert again.keys() == first.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_an_editable_install_finds_the_checkout(checkout: Path, tmp_path: Path) -> None:
    for name in ("wheel", "site"):
        (tmp_path / name).mkdir()
    editable = built("build_editable", checkout, tmp_path / "wheel")
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "site", editable, cwd=tmp_path)
    # Without the environment's own packages, among which another hardroute may be.
    code = (
        "import site, sys; from importlib.util import find_spec; site.addsitedir(sys.argv[1])\n"
        "print(find_spec('hardroute').origin, [find_spec(name) for name in ('runtime', 'models', 'app')])"
    )
    told = python("-I", "-S", "-c", code, tmp_path / "site", cwd=tmp_path)
    assert told == f"{checkout / 'hardroute' / '__init__.py'} [None, None, None]\n"


def test_names_in_the_working_directory_are_not_ours(installed: Path, crowded: Path) -> None:
    where = "import hardroute, hardroute.runtime.inference as room; print(hardroute.__file__); print(room.__file__)"
    for file in python("-c", where, cwd=crowded, path=installed).splitlines():
        assert Path(file).is_relative_to(installed)
    told = python("-c", "from hardroute import Engine, evaluate, METHODS; print(Engine)", cwd=crowded, path=installed)
    assert told == "<class 'hardroute.runtime.inference.engine.Engine'>\n"


def test_the_command_works_beside_them(installed: Path, crowded: Path) -> None:
    program = installed / "bin" / "hardroute"
    for command in ([program], ["-m", "hardroute"]):
        assert python(*command, "--version", cwd=crowded, path=installed) == f"hardroute {__version__}\n"
        assert "name        motion" in python(*command, "info", "motion", cwd=crowded, path=installed)
    python(program, "render", "motion:train=0,val=0,test=1", "--out", "clips", cwd=crowded, path=installed)
    clip = next((crowded / "clips" / "test").iterdir())
    assert clip.name in python(program, "predict", "motion", clip, cwd=crowded, path=installed)
    for verb in ("audit", "fit", "page"):
        assert "Usage:" in python(program, verb, "--help", cwd=crowded, path=installed)
