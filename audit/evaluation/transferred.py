"""Clips made on other models count in the headline too, and should not beat the attacks on the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hardroute.audit.bundles import AUDITED
from hardroute.audit.evaluation.evaluator import Evaluation
from hardroute.audit.evaluation.ledger import ByEps
from hardroute.audit.evaluation.statistics import Proportion, two_sided
from hardroute.audit.evaluation.transfer import Transfer
from hardroute.runtime.bundle import Bundle


@dataclass(frozen=True)
class Foreign:
    """Transfer from other bundles.

    Attributes:
        matrix: sources by targets; the first of both is the audited model, AUDITED.
        only: (N,) bool: stands under the suite and the matrix's attacks on the model itself, and falls to another's.
        bundles: the others, by name. undefended: those that were trained without a defence.
    """

    matrix: Transfer
    only: np.ndarray
    bundles: Mapping[str, Bundle]
    undefended: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For report.json: accuracies of all clips, by attack, source and target."""
        matrix = self.matrix
        own = matrix.white_box(AUDITED)
        return {
            "eps_255": round(matrix.eps * 255, 6),
            "models": {
                name: {"digest": self.bundles[name].digest, "undefended": name in self.undefended}
                for name in self.bundles
            },
            "clean": {name: Proportion.of(right).as_dict() for name, right in matrix.clean.items()},
            "accuracy": {
                source: {
                    attack: {target: matrix.accuracy(attack, source, target).as_dict() for target in matrix.targets}
                    for attack in matrix.attacks
                }
                for source in matrix.sources
            },
            "only_transferred": Proportion.of(self.only).as_dict(),
            "white_box": {name: Proportion.of(matrix.white_box(name)).as_dict() for name in matrix.sources},
            "paired": {name: _paired(own, matrix.white_box(name)) for name in self.bundles},
        }


def counted_in(evaluation: Evaluation, matrix: Transfer) -> tuple[Evaluation, np.ndarray]:
    """The evaluation with what fell to transferred clips fallen; (N,) bool: what fell to nothing else."""
    standing = evaluation.robust[matrix.eps]
    fell_own, fell = (
        np.logical_or.reduce([~matrix.held[attack][source][AUDITED] for attack in matrix.attacks for source in sources])
        for sources in ((AUDITED,), matrix.sources)
    )
    larger = [eps for eps in evaluation.eps if eps >= matrix.eps]
    makers = [_name(attack, source) for attack, source, _, _ in matrix.shown]
    joined = replace(
        evaluation,
        transferred=tuple(dict.fromkeys(makers)),
        robust={eps: held & ~fell if eps in larger else held for eps, held in evaluation.robust.items()},
        adversarial=_copied(evaluation.adversarial),
        adversarial_label=_copied(evaluation.adversarial_label),
        adversarial_route=_copied(evaluation.adversarial_route),
        adversarial_by=_copied(evaluation.adversarial_by),
    )
    for maker, (_, _, some, found) in zip(makers, matrix.shown, strict=True):
        kept, label, route = some[found.kept], found.rounded_label[found.kept], found.rounded_route[found.kept]
        for eps in larger:
            # The first that fools in 8 bits stays.
            right = joined.adversarial_label[eps][kept] == evaluation.labels[kept]
            new = right & (label != evaluation.labels[kept])
            at = kept[new]
            joined.adversarial[eps][at], joined.adversarial_label[eps][at] = found.frames[new], label[new]
            joined.adversarial_route[eps][at] = route[new]
            joined.adversarial_by[eps][at] = len(evaluation.attacks) + joined.transferred.index(maker)
    return joined, standing & ~fell_own & fell


def felled_by(matrix: Transfer, clip: int) -> list[str]:
    """Names of the transferred attacks that fell the audited model on a clip that it gets right."""
    return [
        _name(attack, source)
        for source in matrix.sources
        for attack in matrix.attacks
        if not matrix.held[attack][source][AUDITED][clip]
    ]


def _copied(book: ByEps) -> ByEps:
    return {eps: values.copy() for eps, values in book.items()}


def _name(attack: str, source: str) -> str:
    return attack if source == AUDITED else f"{attack} from {source}"


def _paired(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    only = int((first & ~second).sum()), int((second & ~first).sum())
    return {"this_only": only[0], "other_only": only[1], "p": two_sided(*only)}
