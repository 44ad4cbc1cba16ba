"""Picture of the IoU distributions: how much of its softmax an answer keeps under attack."""

from __future__ import annotations

from typing import Any

import numpy as np

from hardroute.audit.report.plots import LINES, figure, svg

# Shown where they were run: the attacks on each side that the paper compares (its Fig. 4 and 6).
ROUTER = ("pgd-r", "tla-r", "tlga-r")
MODEL = ("pgd", "tla-m", "j-tlga")
MOST = 4  # of other attacks, where none of these was run


def iou_histograms(per_attack: dict[str, dict[str, Any]]) -> str:
    """SVG with a panel for the router and one for the model: share of clips in each bin of the IoU.

    Args:
        per_attack: of one eps, as in report.json: name -> {"router_iou", "model_iou", ...}.
    """
    drawing, both = figure(8.6, 3.3, columns=2)
    for axes, title, key, wanted in (
        (both[0], "router", "router_iou", ROUTER),
        (both[1], "model", "model_iou", MODEL),
    ):
        for colour, name in zip(LINES, chosen(per_attack, key, wanted), strict=False):
            found = per_attack[name][key]
            shares = 100 * np.asarray(found["histogram"]) / found["n"]
            edges = np.linspace(0, 1, len(shares) + 1)
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.18)
            axes.stairs(shares, edges, color=colour, lw=1.6, label=f"{name} (n = {found['n']})")
        # What no attack does: every answer as it was.
        axes.axvline(1, color="#1c2733", lw=1, ls=(0, (2, 2)), label="unattacked")
        axes.set(title=f"IoU of the {title}'s softmax", xlabel="1: unmoved, 0: nothing in common", xlim=(0, 1.01))
        axes.title.set_fontsize(10)
        axes.legend(frameon=False, fontsize=8, loc="best")
    both[0].set_ylabel("clips attacked, %")
    return svg(drawing)


def chosen(per_attack: dict[str, dict[str, Any]], key: str, wanted: tuple[str, ...]) -> list[str]:
    """Names of the attacks to draw: those wanted that have values, else the first few that have."""
    measured = [name for name, found in per_attack.items() if found[key]["n"]]
    return [name for name in wanted if name in measured] or measured[:MOST]
