"""What a comparison says: a row for each run, the rows as a table, and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict

from hardroute.audit.report import BLUE, GRID, INK, LINES, ORANGE, REPORT, Report, figure, save
from hardroute.runtime.errors import DataError
from hardroute.training.run import Run

# What a reader looks for first; the table has every attack.
SHOWN: Final = ("CLEAN", "PGD", "TLGA-R", "J-TLGA", "worst case")


class Share(TypedDict):
    """A proportion of n clips with its 95 % Wilson interval, in [0, 1]."""

    share: float
    low: float
    high: float
    n: int


class Slope(TypedDict):
    """A norm ratio over clips (hardroute.audit.evaluation)."""

    mean: float


class Row(TypedDict):
    """One run of a comparison, as compare.json has it. `by_eps`: the audit's table for every eps."""

    method: str
    seed: int
    epochs: int
    training_tflops: float
    training_seconds: NotRequired[float]
    load_entropy: float
    bundle: NotRequired[str]
    attack_precision: NotRequired[str]
    router_spread: float
    eps_255: float
    accuracy: dict[str, Share]
    lips_r: Slope | None
    lips_j: Slope | None
    gflops: dict[str, float]
    by_eps: NotRequired[list[dict[str, Any]]]


def row_of(run: Run, audit: Path, tflops: float) -> Row:
    """What the table says of one run and the report of its audit in the folder `audit`.

    `tflops`: what training it cost. Raises DataError for a report whose attacks did not run on every clip.
    """
    report, settings = Report.read(audit / REPORT), run.record.settings
    if report.tables.this_model is None:
        raise DataError(f"{audit / REPORT}: attacks did not run on every clip; remove the folder to audit again")
    found = report.tables.this_model.model_dump(mode="json")
    return {
        "method": settings.method,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "training_tflops": tflops,
        "training_seconds": sum(epoch.seconds for epoch in run.metrics),
        "load_entropy": report.router.clean.entropy,
        "bundle": report.bundle.digest,
        "attack_precision": report.attack_precision,
        "router_spread": report.router.spread or 0.0,
        "eps_255": found["eps_255"],
        "accuracy": found["accuracy"],
        "lips_r": found["lips_r"],
        "lips_j": found["lips_j"],
        "gflops": found["gflops"],
        "by_eps": found["by_eps"],
    }


def table(rows: Sequence[Row]) -> str:
    """The rows in the shape of the paper's Tab. 2, as Markdown: per cent with 95 % Wilson intervals."""
    columns = list(rows[0]["accuracy"])
    head = ["method", "seed", "epochs", *columns, "Lips-R", "Lips-R / spread", "Lips-J", "GFLOPs", "load entropy"]
    lines = [head, ["---"] * len(head)]
    for each in rows:
        cells = [each["method"], str(each["seed"]), str(each["epochs"])]
        for found in (each["accuracy"].get(column) for column in columns):
            cells.append(
                f"{100 * found['share']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})" if found else "-"
            )
        router, joint = (slope["mean"] if slope else None for slope in (each["lips_r"], each["lips_j"]))
        # Lips-R shrinks with the router's scores, and routes do not: what it is of their spread does not.
        relative = router / each["router_spread"] if router is not None and each["router_spread"] else None
        slopes = [router, relative, joint]
        cells += ["-" if slope is None else f"{slope:.3g}" for slope in slopes]
        cells += [f"{each['gflops']['routed']:.3f}", f"{each['load_entropy']:.2f}"]
        lines.append(cells)
    n = rows[0]["accuracy"]["CLEAN"]["n"]
    caption = (
        f"Accuracy in per cent at eps {rows[0]['eps_255']:g}/255, n = {n}; {rows[0]['training_tflops']:.0f} TFLOP each."
    )
    return caption + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def draw(path: str | Path, rows: Sequence[Row]) -> None:
    """PNG of the rows: a line for each, points with 95 % Wilson intervals in per cent."""
    columns = [name for name in SHOWN if name in rows[0]["accuracy"]]
    colours = dict(zip(SHOWN, (ORANGE, *LINES[:3], BLUE), strict=True))
    drawing, (axes,) = figure(7.2, 1.1 + 0.42 * len(rows))
    for number, column in enumerate(columns):
        found = [row["accuracy"][column] for row in rows]
        share = [100 * each["share"] for each in found]
        low = [100 * (each["share"] - each["low"]) for each in found]
        high = [100 * (each["high"] - each["share"]) for each in found]
        at = [line + 0.13 * (number - (len(columns) - 1) / 2) for line in range(len(rows))]
        axes.errorbar(share, at, xerr=(low, high), fmt="o", ms=4, lw=1.2, color=colours[column], label=column)
    for line in range(1, len(rows)):
        axes.axhline(line - 0.5, color=GRID, lw=0.8)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, lw=0.8)
    seeds = len({row["seed"] for row in rows}) > 1
    names = [f"{row['method']}, seed {row['seed']}" if seeds else row["method"] for row in rows]
    axes.set(yticks=range(len(rows)), xlabel=f"accuracy at eps {rows[0]['eps_255']:g}/255, %")
    axes.set_yticklabels(names, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    drawing.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=len(columns))
    save(drawing, path)
