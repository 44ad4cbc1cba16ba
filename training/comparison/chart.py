"""A comparison as a picture: for each method, accuracy under each attack with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardroute.audit.report import BLUE, GRID, INK, LINES, ORANGE, figure, save

# What a reader looks for first; the table has every attack.
SHOWN = ("CLEAN", "PGD", "TLGA-R", "J-TLGA", "worst case")


def draw(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """PNG of the rows of `compare`: a line for each, points with 95 % Wilson intervals in per cent."""
    columns = [name for name in SHOWN if name in rows[0]["accuracy"]]
    colours = dict(zip(SHOWN, (ORANGE, *LINES[:3], BLUE), strict=True))
    drawing, (axes,) = figure(7.2, 1.1 + 0.42 * len(rows))
    for number, column in enumerate(columns):
        found = [row["accuracy"][column] for row in rows]
        share = [100 * each["share"] for each in found]
        low, high = ([100 * abs(each["share"] - each[end]) for each in found] for end in ("low", "high"))
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
