"""Pictures for the report: inline SVG charts and PNG frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardroute.audit.report.figures import Rate
from hardroute.runtime.files import replacing

INK, MUTED, GRID = "#1c2733", "#5b6b7b", "#dfe5ea"
GAP = 4  # pixels between frames
BLUE, ORANGE, LINES = "#1f5fa8", "#c8641b", ("#7a8ea3", "#8c7ab8", "#5aa08a", "#b0853f", "#a86079", "#6f8f4e")


Point = tuple[float, Rate]  # eps in 1/255, and what was found there


def accuracy_curve(
    worst: Sequence[Point], attacks: Mapping[str, Sequence[Point]], bound: tuple[float, float] | None
) -> str:
    """SVG of accuracy against eps.

    Args:
        worst: the worst case, rising in eps; the band is its interval.
        attacks: the same of each attack.
        bound: (eps in 1/255, share) that the policy asks for.
    """
    drawing, (axes,) = figure(7.2, 3.7)
    for colour, (name, points) in zip(LINES * len(attacks), attacks.items(), strict=False):
        axes.plot(*_xy(points), color=colour, lw=1.2, ls=(0, (4, 2)), marker="o", ms=3, label=name)
    x, y = _xy(worst)
    low, high = [100 * found.low for _, found in worst], [100 * found.high for _, found in worst]
    axes.fill_between(x, low, high, color=BLUE, alpha=0.18, lw=0, label="95 % interval")
    axes.plot(x, y, color=BLUE, lw=2.4, marker="o", ms=5, label="worst case per clip")
    if bound:
        axes.plot(
            [bound[0]],
            [100 * bound[1]],
            color=ORANGE,
            marker="_",
            ms=18,
            mew=2.5,
            ls="",
            label="policy bound",
        )
    axes.set(xlabel="eps (L-inf, 1/255)", ylabel="accuracy, %", ylim=(-2, 102), xticks=x)
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="outside lower center", ncols=5)
    return svg(drawing)


def load_bars(before: Sequence[float], after: Sequence[float], eps_255: float) -> str:
    """SVG of each expert's share of the clips, unattacked and under the worst perturbation found."""
    drawing, (axes,) = figure(7.2, 2.6)
    at = np.arange(len(before))
    for shift, load, colour, label in (
        (-0.2, before, BLUE, "unattacked"),
        (0.2, after, ORANGE, f"worst at {eps_255:g}/255"),
    ):
        bars = axes.bar(at + shift, 100 * np.asarray(load), 0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=8, color=MUTED, padding=1)
    highest = 100 * max(*before, *after)
    axes.set(ylabel="clips, %", xticks=at, ylim=(0, max(highest * 1.15, 1)))
    axes.set_xticklabels([f"expert {j}" for j in at])
    drawing.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return svg(drawing)


def strip(frames: np.ndarray, height: int = 96) -> str:
    """data: URI of a PNG with frames (T, H, W, 3) uint8 RGB side by side, enlarged without smoothing."""
    factor = max(1, round(height / frames.shape[1]))
    large = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    # A white edge between frames: without it, what moves seems to be one long picture.
    spaced = np.pad(large, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    row = np.concatenate(list(spaced), axis=1)[:, :-GAP]
    done, png = cv2.imencode(".png", row[..., ::-1])
    if not done:
        raise RuntimeError("OpenCV could not write a PNG")
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def amplified(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The perturbation as a picture: grey is no change, and the largest change fills the scale."""
    change = after.astype(np.int16) - before.astype(np.int16)
    return (127 + change * (127 // max(1, int(np.abs(change).max())))).astype(np.uint8)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [eps for eps, _ in points], [100 * (found.share or 0.0) for _, found in points]


def figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty drawing in the report's style, width x height in inches, with its axes row by row."""
    # Figure, not pyplot: no global state, and nothing that waits for a display.
    drawing = Figure(figsize=(width, height), layout="constrained")
    every = [drawing.add_subplot(rows, columns, n + 1) for n in range(rows * columns)]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        axes.grid(axis="y", color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=MUTED, labelsize=9, length=0)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
    return drawing, every


def svg(drawing: Figure) -> str:
    """The drawing as inline SVG, equal bytes for equal drawings."""
    out = io.StringIO()
    # Text stays text (selectable, in the page's font); fixed ids, so that equal charts are equal bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hardroute", "font.family": "sans-serif"}):
        drawing.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def save(drawing: Figure, path: str | Path) -> None:
    """The drawing as a PNG file, which appears whole or not at all."""
    with replacing(path) as file:
        drawing.savefig(file, format="png", dpi=120)
