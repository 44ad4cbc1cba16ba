"""What README and docs name is there: commands with their options, files, links, targets of make."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hardroute
from hardroute import cli
from tests.support.paths import DOCS, ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
# What stands there as it was.
HISTORY = ROOT / "CHANGELOG.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return FENCE.sub("", TEXT[page])


def code(page: Path) -> Iterator[str]:
    """Every line of a shell block, and everything in backticks."""
    for language, block in FENCE.findall(TEXT[page]):
        if language in ("", "bash"):
            yield from (line.split(" #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
    yield from re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `hardroute` of every command of it, however it is started."""
    for line in code(page):
        found = re.match(r"(?:\S*bin/)?(?:torchrun .*-m )?hardroute ([a-z].*)", line)
        if found:
            yield shlex.split(found[1])


@functools.cache
def told(*verbs: str) -> str:
    shown = CliRunner().invoke(cli.app, [*verbs, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    return shown.output


def unknown_words(command: list[str]) -> list[str]:
    verb, *words = command
    if verb not in cli.VERBS:
        return [verb]
    verbs = (verb, words[0]) if verb == "log" and words else (verb,)
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    return sorted(option for option in options if not re.search(rf"{option}\b(?!-)", told(*verbs)))


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    assert {shlex.join(command): unknown_words(command) for command in commands(page) if unknown_words(command)} == {}


def test_there_are_commands_to_look_at() -> None:
    assert len([command for page in PAGES for command in commands(page)]) >= 30
    assert unknown_words(["predict", "motion", "--lgo", "x"]) == ["--lgo"]
    assert unknown_words(["pedict"]) == ["pedict"]


@each_page
def test_modules_that_are_run_exist(page: Path) -> None:
    if page == HISTORY:
        return
    ran = {name for line in code(page) for name in re.findall(r"-m ([a-z_.]+)", line)} - {"pytest"}
    assert [name for name in sorted(ran) if importlib.util.find_spec(name) is None] == []


@each_page
def test_names_that_are_imported_exist(page: Path) -> None:
    if page == HISTORY:
        return
    wanted = [
        (node.module or "", alias.name)
        for language, block in FENCE.findall(TEXT[page])
        if language == "python"
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    ours = [(module, name) for module, name in wanted if module.partition(".")[0] == "hardroute"]
    assert [name for module, name in ours if not hasattr(importlib.import_module(module), name)] == []
    # `hardroute.Hub` and the like.
    public = set(re.findall(r"\bhardroute\.([A-Z]\w+)", TEXT[page]))
    assert public <= set(hardroute.__all__)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page))
    assert [link for link in targets if "://" not in link and not (page.parent / link).exists()] == []


@each_page
def test_files_of_the_project_that_are_named_exist(page: Path) -> None:
    if page == HISTORY:
        return
    named = re.findall(r"`((?:audit|docs|hardroute|models|runtime|tests|training)/[\w./-]*)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", TEXT[DOCS / "README.md"]))
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert pages | {f"../{page.name}" for page in ROOT.glob("*.md")} == linked


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {name for page in PAGES for line in code(page) for name in re.findall(r"^make ([a-z-]+)", line)}
    assert {"demo", "test", "check", "bench", "zoo"} <= named
    assert [name for name in sorted(named) if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_every_verb_and_exit_code_has_its_row() -> None:
    page = TEXT[DOCS / "cli.md"]
    verbs = page.partition("| verb |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", verbs, re.MULTILINE) == list(cli.VERBS)
    parts = dict(re.findall(r"^\| `(python [^`]+)` \| (.+) \|$", page, re.MULTILINE))
    for part, how in cli.PARTS.items():
        mine = [name for name, verb in cli.VERBS.items() if verb.part == part]
        row = parts[f"{how} VERB"] if len(mine) > 1 else parts[how]
        assert re.findall(r"`(?:hardroute )?(\w+)`", row) == mine
