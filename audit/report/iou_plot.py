"""Picture of the IoU distributions: how much of its softmax an answer keeps under attack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hardroute.audit.report.figures import Distribution, UnderAttack
from hardroute.audit.report.plots import LINES, figure, svg

# Shown where they were run: the attacks on each side that the paper compares (its Fig. 4 and 6).
ROUTER = ("pgd-r", "tla-r", "tlga-r")
MODEL = ("pgd", "tla-m", "j-tlga")
MOST = 4  # of other attacks, where none of these was run


def iou_histograms(per_attack: Mapping[str, UnderAttack]) -> str:
    """SVG with a panel for the router and one for the model: share of clips in each bin of the IoU, at one eps."""
    drawing, both = figure(8.6, 3.3, columns=2)
    for axes, title, of_part, wanted in (
        (both[0], "router", {name: found.router_iou for name, found in per_attack.items()}, ROUTER),
        (both[1], "model", {name: found.model_iou for name, found in per_attack.items()}, MODEL),
    ):
        for colour, name in zip(LINES, chosen(of_part, wanted), strict=False):
            found = of_part[name]
            shares = 100 * np.asarray(found.histogram) / found.n
            edges = np.linspace(0, 1, len(shares) + 1)
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.18)
            axes.stairs(shares, edges, color=colour, lw=1.6, label=f"{name} (n = {found.n})")
        # What no attack does: every answer as it was.
        axes.axvline(1, color="#1c2733", lw=1, ls=(0, (2, 2)), label="unattacked")
        axes.set(title=f"IoU of the {title}'s softmax", xlabel="1: unmoved, 0: nothing in common", xlim=(0, 1.01))
        axes.title.set_fontsize(10)
        axes.legend(frameon=False, fontsize=8, loc="best")
    both[0].set_ylabel("clips attacked, %")
    return svg(drawing)


def chosen(of_part: Mapping[str, Distribution], wanted: tuple[str, ...]) -> list[str]:
    """Names of the attacks to draw: those wanted that have values, else the first few that have."""
    measured = [name for name, found in of_part.items() if found.n]
    return [name for name in wanted if name in measured] or measured[:MOST]
