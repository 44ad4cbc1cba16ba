"""What `python -m audit` shows a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from hardroute.audit.checks import Verdict
from hardroute.audit.report.certificate import NAME

console = Console(highlight=False)


class Show:
    """Receives the progress of an audit, phase by phase, each with a bar of its own."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def phase(self, name: str) -> Callable[..., None]:
        """What to call with (done, total) and, if it changes, a word on what is being done."""

        def show(done: int, total: int, what: str = name) -> None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._tasks[name], completed=done, total=total, description=escape(what))

        return show


@contextmanager
def progress() -> Iterator[Show]:
    """Bars on stderr with the time left; they vanish when done and never mix with the verdict."""
    columns = (
        TextColumn("{task.description:<30}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Show(bars)


def verdict(found: Verdict, written: tuple[Path, ...]) -> None:
    """The checks as a table, the verdict, and where report and certificate lie."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "check", "measured", "asked"):
        table.add_column(heading, justify="right" if heading in ("measured", "asked") else "left")
    for check in found.checks:
        mark = "[green]ok[/]" if check.passed else "[bold red]NO[/]"
        table.add_row(mark, check.name, f"{check.measured:.3g}", f"{check.wants} {check.bound:.3g}")
    console.print(table)
    for check in found.checks:
        if not check.passed or check.headline:
            console.print(escape(check.sentence))
    console.print("[bold green]PASSED[/]" if found.passed else "[bold red]REFUSED[/]")
    for path in written:
        console.print(f"{path.stem}: {path}", soft_wrap=True, markup=False)
    if found.passed and all(path.name != NAME for path in written):
        why = "--limit looks at fewer clips than the policy asks for, or --attack-precision is not fp32"
        console.print(f"no certificate: {why}", soft_wrap=True)


def attached(place: Path | None) -> None:
    """What became of the certificate inside the bundle."""
    found = f"attached: {place}" if place else "the bundle has no certificate now"
    console.print(found, soft_wrap=True, markup=False)
