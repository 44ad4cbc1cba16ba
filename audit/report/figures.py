"""The figures of a report: what one eps and one attack came to, as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.measures import distribution, summary
from hardroute.audit.evaluation.replay import Agreement, worst_case
from hardroute.audit.evaluation.statistics import Proportion, load_entropy, load_of


def attack_row(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """How an attack was set; only its name where it is none of ATTACKS."""
    row = ATTACKS.get(name)
    if row is None:
        return {"name": name}
    return {"name": name, "seed": evaluation.seed, **row.describe(evaluation.steps, evaluation.experts)}


def at(eps: float, evaluation: Evaluation, agreement: Agreement) -> dict[str, Any]:
    """All that was found at one eps."""
    changed = evaluation.adversarial_route[eps] != evaluation.clean_route
    return {
        "eps_255": round(eps * 255, 6),
        "worst_case": Proportion.of(worst_case(evaluation, agreement, eps)).as_dict(),
        "audited": Proportion.of(evaluation.robust[eps]).as_dict(),
        "deployed_on_replay": Proportion.of(agreement.replayed_right[eps]).as_dict(),
        "agreement_on_replay": Proportion.of(agreement.replayed[eps]).as_dict(),
        "per_attack": {name: _under(name, eps, evaluation) for name in evaluation.attacks},
        "router": {
            **load(evaluation.adversarial_route[eps], evaluation.experts),
            "flips": Proportion.of(changed[evaluation.clean]).as_dict(),
        },
    }


def load(routes: np.ndarray, experts: int) -> dict[str, Any]:
    """Share of the clips that each expert gets, and the entropy of that as a share of the greatest possible."""
    shares = load_of(routes, experts)
    return {"load": shares.tolist(), "entropy": load_entropy(shares)}


def _under(name: str, eps: float, evaluation: Evaluation) -> dict[str, Any]:
    tested, measures = evaluation.tested[name][eps], evaluation.measures[name][eps]
    return {
        "accuracy": evaluation.accuracy(name, eps).as_dict(),
        "tested": int(tested.sum()),
        "route_flips": evaluation.flips(name, eps).as_dict(),
        "router_iou": distribution(measures.router_iou),
        "model_iou": distribution(measures.model_iou),
        "router_slope": summary(measures.router_slope),
        "model_slope": summary(measures.model_slope),
        # Of the same clips, so that only the attack differs.
        "load_before": load(evaluation.clean_route[tested], evaluation.experts),
        "load_after": load(evaluation.route[name][eps][tested], evaluation.experts),
    }
