"""How a run went, epoch by epoch: a picture, and events that TensorBoard reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from hardroute.audit.report import BLUE, LINES, MUTED, ORANGE, figure, save
from hardroute.training.loop.run import validated


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one epoch's record, flat: nested names are joined by slashes, lists numbered."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": number for inner, number in scalars(value).items()}
        else:
            flat[name] = float(value)
    return flat


def write_events(folder: str | Path, metrics: Mapping[str, Any]) -> None:
    """Adds one epoch to the event files in `folder`; `tensorboard --logdir RUN` shows them."""
    with SummaryWriter(str(folder)) as writer:
        for name, value in scalars(metrics).items():
            writer.add_scalar(name, value, metrics["epoch"])


def draw(path: str | Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """PNG of all validated epochs so far: accuracy unattacked and under each watched attack, and the experts' load."""
    metrics = validated(metrics)
    if not metrics:
        return
    epochs = [epoch["epoch"] for epoch in metrics]
    drawing, (accuracy, load) = figure(7.2, 5.2, rows=2)
    accuracy.plot(epochs, [100 * epoch["clean"] for epoch in metrics], color=ORANGE, lw=1.8, label="unattacked")
    for colour, name in zip(LINES, metrics[-1]["under"], strict=False):
        shares = [100 * epoch["under"][name] for epoch in metrics]
        accuracy.plot(epochs, shares, color=colour, lw=1.2, ls=(0, (4, 2)), label=name)
    accuracy.plot(epochs, [100 * epoch["robust"] for epoch in metrics], color=BLUE, lw=2.4, label="worst of them")
    accuracy.set(ylabel="validation accuracy, %", ylim=(-2, 102))
    accuracy.legend(frameon=False, fontsize=8, ncols=3)
    for expert, colour in zip(range(len(metrics[-1]["load"])), LINES * 11, strict=False):
        load.plot(epochs, [epoch["load"][expert] for epoch in metrics], color=colour, lw=1.6, label=f"expert {expert}")
    load.axhline(1 / len(metrics[-1]["load"]), color=MUTED, lw=0.8, ls=":")
    load.set(xlabel="epoch", ylabel="share of clips", ylim=(-0.02, 1.02))
    load.legend(frameon=False, fontsize=8, ncols=4)
    save(drawing, path)
