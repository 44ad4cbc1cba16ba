"""What an attack maximises: one number per clip, built from a few terms that add, subtract and scale.

A head names the part that a term looks at: MOE is the path's class logits F(x), ROUTER the router's logits R(x),
EXPERT the class logits E_i(x) of one given expert. Equation numbers are those of the paper on TLGA and J-TLAT.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hardroute.audit.attacks.reference import Head, Reference
from hardroute.audit.attacks.settings import Settings
from hardroute.models import Outputs

Value = Callable[[Outputs, Tensor, Reference, Settings], Tensor]
Target = Callable[[Reference], Tensor]


def MOE(outputs: Outputs, reference: Reference) -> Tensor:
    return reference.of_classes(outputs.logits)


def ROUTER(outputs: Outputs, reference: Reference) -> Tensor:
    return outputs.router


def EXPERT(outputs: Outputs, reference: Reference) -> Tensor:
    return reference.of_classes(outputs.expert(reference.target))


def label(reference: Reference) -> Tensor:
    return reference.y


def clean_route(reference: Reference) -> Tensor:
    return reference.route


def weakest_route(reference: Reference) -> Tensor:
    return reference.weakest


def target_route(reference: Reference) -> Tensor:
    return reference.target


@dataclass(frozen=True)
class Objective:
    """A function (outputs at x_adv, x_adv, reference, settings) -> (N,) that the attack maximises."""

    value: Value

    def __call__(self, outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        return self.value(outputs, x_adv, reference, settings)

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(lambda *at: self(*at) + other(*at))

    def __sub__(self, other: "Objective") -> "Objective":
        return Objective(lambda *at: self(*at) - other(*at))

    def __neg__(self) -> "Objective":
        return Objective(lambda *at: -self(*at))


@dataclass(frozen=True)
class Weight:
    """A scalar setting by name, so that a row of the table reads `LAM * lip(MOE)` and the value stays a setting."""

    name: str

    def __mul__(self, objective: Objective) -> Objective:
        # A weight of zero skips the term: its clean forward pass would be wasted.
        return Objective(lambda *at: (weight := getattr(at[3], self.name)) and weight * objective(*at))


LAM, GAMMA1, GAMMA2 = Weight("lam"), Weight("gamma1"), Weight("gamma2")


def ce(head: Head, towards: Target = label) -> Objective:
    """Cross-entropy of a head's logits against a class or an expert per clip."""
    return Objective(lambda out, x, ref, s: cross_entropy(head(out, ref), towards(ref), reduction="none"))


def lip(head: Head) -> Objective:
    """MSE(g(x), g(x_adv)) / MSE(x, x_adv) per clip (eq. 3): the squared local slope, with means for norms."""

    def value(outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        moved = (head(outputs, reference) - reference.clean(head)).square().mean(1)
        return moved / (x_adv - reference.x).detach().square().flatten(1).mean(1).clamp_min(settings.floor)

    return Objective(value)


def shortfall(logits: Tensor, index: Tensor) -> Tensor:
    """(N,) the best other of the logits (N, K) minus that of `index` (N,): negative where `index` wins."""
    at = index.unsqueeze(1)
    return logits.scatter(1, at, -torch.inf).amax(1) - logits.gather(1, at).squeeze(1)


def margin(head: Head, towards: Target = label) -> Objective:
    """The best other logit minus the logit of `towards`: positive where the head no longer says `towards`."""

    return Objective(lambda out, x, ref, s: shortfall(head(out, ref), towards(ref)))


def rival_lead(head: Head) -> Objective:
    """The logit of the wrong class at `reference.rank` minus the label's."""

    def value(outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        logits, rival = head(outputs, reference), reference.rival(head).unsqueeze(1)
        return (logits.gather(1, rival) - logits.gather(1, reference.y.unsqueeze(1))).squeeze(1)

    return Objective(value)


def dlr(head: Head) -> Objective:
    """Targeted difference of logits ratio (Croce and Hein 2020): the rival's lead over z1 - (z3 + z4) / 2, sorted.

    Blind to the scale of the logits. With 3 classes it is divided by z1 - z3. With 2 there is no such ratio: the
    plain lead, whose scale no sign step sees.
    """
    lead = rival_lead(head)

    def value(outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        logits = head(outputs, reference)
        top = logits.topk(min(4, logits.shape[1]), dim=1).values
        scale: Tensor | float = 1.0
        if top.shape[1] > 2:
            scale = (top[:, 0] - top[:, 2:].mean(1)).clamp_min(1e-12)
        return lead(outputs, x_adv, reference, settings) / scale

    return Objective(value)
