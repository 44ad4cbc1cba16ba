"""Tables in the shape of those of the paper on TLGA and J-TLAT, so that they can be laid beside each other."""

from __future__ import annotations

import numpy as np

from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.replay import Agreement, worst_case
from hardroute.audit.report.figures import Rate, Section, Summary, in_255

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


Cells = dict[str, tuple[Rate, ...]]  # attack -> one cell for each eps


class Gflops(Section):
    """Operations of one clip, in 10^9, two per multiply-add.

    `routed`: router and chosen expert, on average over the load. `dense`: router and all experts.
    """

    router: float
    routed: float
    dense: float


class ModelRow(Section):
    """One model in one row at one eps; `lips_r` and `lips_j` are means of norm ratios, None where not measured."""

    eps_255: float
    accuracy: dict[str, Rate]
    lips_r: Summary | None
    lips_j: Summary | None


class ThisModel(ModelRow):
    """The row of the gate's eps, what a clip costs, and the same of every eps."""

    gflops: Gflops
    by_eps: tuple[ModelRow, ...] = ()


class Tables(Section):
    """Each None unless its attacks were run on every clip that is right unattacked. Cells are shares of all clips."""

    by_part: dict[str, Cells] | None = None
    this_model: ThisModel | None = None
    ablation: Cells | None = None

    @classmethod
    def of(cls, evaluation: Evaluation, agreement: Agreement, gate: float, gflops: Gflops) -> Tables:
        """`gate`: the eps of `this_model`."""
        return cls(
            by_part=_by_part(evaluation),
            this_model=_this_model(evaluation, agreement, gate, gflops),
            ablation=_grid(evaluation, ABLATION) if _ran(evaluation, ABLATION) else None,
        )


def _ran(evaluation: Evaluation, names: tuple[str, ...]) -> bool:
    return evaluation.thorough and set(names) <= set(evaluation.attacks)


def _by_part(evaluation: Evaluation) -> dict[str, Cells] | None:
    groups = {part: tuple(name for name in names if _ran(evaluation, (name,))) for part, names in PARTS.items()}
    if not all(groups.values()):
        return None
    return {part: _grid(evaluation, names) for part, names in groups.items()}


def _grid(evaluation: Evaluation, names: tuple[str, ...]) -> Cells:
    return {name: tuple(Rate.of(evaluation.accuracy(name, eps)) for eps in evaluation.eps) for name in names}


def _this_model(evaluation: Evaluation, agreement: Agreement, gate: float, gflops: Gflops) -> ThisModel | None:
    ran = {title: [names for names in lists if _ran(evaluation, names)] for title, lists in COLUMNS.items()}
    columns = {title: lists[0] for title, lists in ran.items() if lists}
    if not columns:
        return None

    def row(eps: float) -> ModelRow:
        cells = {"CLEAN": evaluation.clean}
        for title, names in columns.items():
            cells[title] = np.logical_and.reduce([evaluation.per_attack[name][eps] for name in names])
        cells["worst case"] = worst_case(evaluation, agreement, eps)
        return ModelRow(
            eps_255=in_255(eps),
            accuracy={title: Rate.of(outcomes) for title, outcomes in cells.items()},
            lips_r=Summary.of(evaluation.measures["tlga-r"][eps].router_slope) if "TLGA-R" in columns else None,
            lips_j=Summary.of(evaluation.measures["j-tlga"][eps].model_slope) if "J-TLGA" in columns else None,
        )

    return ThisModel(**dict(row(gate)), gflops=gflops, by_eps=tuple(row(eps) for eps in evaluation.eps))
