"""Tables in the shape of those of the paper on TLGA and J-TLAT, so that they can be laid beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.measures import summary
from hardroute.audit.evaluation.replay import Agreement, worst_case
from hardroute.audit.evaluation.statistics import Proportion

# Tab. 1: by the part that is attacked.
PARTS: dict[str, tuple[str, ...]] = {
    "Router": ("pgd-r", "tla-r", "tlga-r"),
    "Expert": ("pgd-e", "tla-e"),
    "Overall": ("fgsm", "pgd", "tla-m"),
    "Joint": ("j-tla", "j-tlga"),
}
# Tab. 2: one row per model. A column is the worst case per clip over the first of these lists that was run whole.
COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "PGD": (("pgd",),),
    "AA": (("autoattack",), ("apgd-ce", "apgd-t", "fab-t", "square")),
    "TT": (("tt",),),
    "FGSM": (("fgsm",),),
    "TLA-M": (("tla-m",),),
    "TLA-E": (("tla-e",),),
    "TLGA-R": (("tlga-r",),),
    "J-TLGA": (("j-tlga",),),
}
# Fig. 5: what each ingredient of J-TLGA adds.
ABLATION = ("pgd", "la", "t-pgd", "tla-m", "j-tlga")


def build(evaluation: Evaluation, agreement: Agreement, gate: float, gflops: dict[str, float]) -> dict[str, Any]:
    """`by_part`, `this_model` and `ablation`, each null unless its attacks were run on every clean-correct clip.

    Cells are proportions of all clips, with n and interval; `lips_r` and `lips_j` are means of norm ratios.
    `this_model` is of the gate's eps, and has the same of every eps in `by_eps`.
    """
    return {
        "by_part": _by_part(evaluation),
        "this_model": _this_model(evaluation, agreement, gate, gflops),
        "ablation": _grid(evaluation, ABLATION) if _ran(evaluation, ABLATION) else None,
    }


def _ran(evaluation: Evaluation, names: tuple[str, ...]) -> bool:
    return evaluation.thorough and set(names) <= set(evaluation.attacks)


def _by_part(evaluation: Evaluation) -> dict[str, Any] | None:
    groups = {part: tuple(name for name in names if _ran(evaluation, (name,))) for part, names in PARTS.items()}
    if not all(groups.values()):
        return None
    return {part: _grid(evaluation, names) for part, names in groups.items()}


def _grid(evaluation: Evaluation, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: [evaluation.accuracy(name, eps).as_dict() for eps in evaluation.eps] for name in names}


def _this_model(
    evaluation: Evaluation, agreement: Agreement, gate: float, gflops: dict[str, float]
) -> dict[str, Any] | None:
    ran = {title: [names for names in lists if _ran(evaluation, names)] for title, lists in COLUMNS.items()}
    columns = {title: lists[0] for title, lists in ran.items() if lists}
    if not columns:
        return None

    def row(eps: float) -> dict[str, Any]:
        cells = {"CLEAN": evaluation.clean}
        for title, names in columns.items():
            cells[title] = np.logical_and.reduce([evaluation.per_attack[name][eps] for name in names])
        cells["worst case"] = worst_case(evaluation, agreement, eps)
        return {
            "eps_255": round(eps * 255, 6),
            "accuracy": {title: Proportion.of(outcomes).as_dict() for title, outcomes in cells.items()},
            "lips_r": summary(evaluation.measures["tlga-r"][eps].router_slope) if "TLGA-R" in columns else None,
            "lips_j": summary(evaluation.measures["j-tlga"][eps].model_slope) if "J-TLGA" in columns else None,
        }

    return {**row(gate), "gflops": gflops, "by_eps": [row(eps) for eps in evaluation.eps]}
