"""Conditions that must all hold for a clip to be misrouted into a mistake, and the objective that raises the worst.

A condition is a logit that has to overtake others. Each is measured in units of its head's spread on the clean clip,
so that router and class logits of any scale can be weighed against each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hardroute.audit.attacks.objectives import Objective, Target, shortfall
from hardroute.audit.attacks.reference import Head, Reference
from hardroute.audit.attacks.settings import Settings
from hardroute.models import Outputs


@dataclass(frozen=True)
class Conditions:
    """A function (outputs, reference) -> (N, conditions): positive where the condition holds. `text` names it."""

    value: Callable[[Outputs, Reference], Tensor]
    text: str


def _relative(head: Head, outputs: Outputs, reference: Reference) -> Tensor:
    # Population form: a router over one expert has a spread of zero rather than none.
    spread = reference.clean(head).std(1, correction=0, keepdim=True)
    return head(outputs, reference) / spread.clamp_min(1e-12)


def prefers(head: Head, winner: Target) -> Conditions:
    """The logit of `winner` leads every other: one condition for each of the others."""

    def value(outputs: Outputs, reference: Reference) -> Tensor:
        logits, index = _relative(head, outputs, reference), winner(reference).unsqueeze(1)
        # It need not lead itself: infinity is a condition that always holds.
        return (logits.gather(1, index) - logits).scatter(1, index, torch.inf)

    return Conditions(value, f"prefers({head.__name__}, {winner.__name__})")


def mistaken(head: Head) -> Conditions:
    """The best wrong class leads the label."""

    def value(outputs: Outputs, reference: Reference) -> Tensor:
        return shortfall(_relative(head, outputs, reference), reference.y).unsqueeze(1)

    return Conditions(value, f"mistaken({head.__name__})")


def mistaken_for_rival(head: Head) -> Conditions:
    """One given wrong class leads the label: the one that stands at `reference.rank` among them on the clean clip."""

    def value(outputs: Outputs, reference: Reference) -> Tensor:
        logits, rival = _relative(head, outputs, reference), reference.rival(head).unsqueeze(1)
        return logits.gather(1, rival) - logits.gather(1, reference.y.unsqueeze(1))

    return Conditions(value, f"mistaken_for_rival({head.__name__})")


def all_of(*conditions: Conditions) -> Objective:
    """A soft minimum of all conditions: a plain one would hop between two that pull against each other."""

    def value(outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        each = torch.cat([condition.value(outputs, reference) for condition in conditions], dim=1)
        return -settings.softness * (-each / settings.softness).logsumexp(1)

    return Objective(value, f"all_of({', '.join(condition.text for condition in conditions)})")
