"""What a person sees of a run while it goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hardroute.training.run import EpochRecord, ValidatedEpoch

console = Console(stderr=True)


@contextmanager
def reading() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A bar for each split that is read: `show("train")` gives its `progress(done, total)`."""
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def show(split: str) -> Callable[[int, int], None]:
            task = bars.add_task(split, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield show


class ConsoleReporter:
    """Live progress of one run; plain lines where there is no terminal. A silent one only warns."""

    def __init__(self, epochs: int, silent: bool = False) -> None:
        self.epochs = epochs
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=silent or not console.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=None, note="")
        self._began: tuple[float, float] | None = None  # when this process first told how far the run was, and that

    def batch(self, epoch: int, step: str, done: int, total: int, loss: float, progress: float) -> None:
        text = f"epoch {epoch}/{self.epochs} {step}"
        note = f"loss {loss:.3f}{self._left(progress)}"
        self.progress.update(self.task, description=text, completed=done, total=total, note=note)

    def epoch(self, record: EpochRecord) -> None:
        loss = " ".join(f"{name} {value:.3f}" for name, value in record.loss.items())
        found = ""
        if isinstance(record, ValidatedEpoch):
            load = " ".join(f"{share:.2f}" for share in record.load)
            found = (
                f"clean {record.clean:.3f}  robust {record.robust:.3f} (n={record.clips})  "
                f"load {load}  flips {record.route_flips:.2f}  "
            )
        head = f"epoch {record.epoch:3d}/{self.epochs}  loss {loss}"
        left = self._left(record.epoch / self.epochs)
        self.progress.console.print(f"{head}  {found}{record.seconds:.0f} s{left}", soft_wrap=True)

    def warn(self, text: str) -> None:
        self.progress.console.print(f"warning: {text}", style="yellow", soft_wrap=True)

    def _left(self, progress: float) -> str:
        """How long the rest of the run takes at the pace so far; `progress`: share of it that is done."""
        now = time.monotonic()
        began, start = self._began = self._began or (now, progress)
        if progress <= start or progress >= 1:
            return ""
        return f"  {span((now - began) * (1 - progress) / (progress - start))} left"


def span(seconds: float) -> str:
    """A length of time as a person says it.

    >>> span(42), span(140), span(7260)
    ('42 s', '2 min', '2 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
