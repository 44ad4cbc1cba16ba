"""What a person sees of a run while it goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hardroute.training.loop.run import validated

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


class Screen:
    """Live progress of one run; plain lines where there is no terminal. A silent one only warns."""

    def __init__(self, epochs: int, silent: bool = False) -> None:
        self.epochs = epochs
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=silent or not console.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=None, note="")

    def batch(self, epoch: int, step: str, done: int, total: int, loss: float) -> None:
        text = f"epoch {epoch}/{self.epochs} {step}"
        self.progress.update(self.task, description=text, completed=done, total=total, note=f"loss {loss:.3f}")

    def epoch(self, metrics: dict[str, Any]) -> None:
        loss = " ".join(f"{name} {value:.3f}" for name, value in metrics["loss"].items())
        found = ""
        if validated([metrics]):
            load = " ".join(f"{share:.2f}" for share in metrics["load"])
            found = (
                f"clean {metrics['clean']:.3f}  robust {metrics['robust']:.3f} (n={metrics['clips']})  "
                f"load {load}  flips {metrics['route_flips']:.2f}  "
            )
        head = f"epoch {metrics['epoch']:3d}/{self.epochs}  loss {loss}"
        self.progress.console.print(f"{head}  {found}{metrics['seconds']:.0f} s", soft_wrap=True)

    def warn(self, text: str) -> None:
        self.progress.console.print(f"warning: {text}", style="yellow", soft_wrap=True)
