"""Every defence by name: a schedule of (trained part, inner attack, outer loss), and the network it is for.

One epoch runs the steps of the schedule one after the other, each over all training clips. A new defence is a new row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hardroute.audit.attacks import (
    ATTACKS,
    EXPERT,
    LAM,
    MOE,
    ROUTER,
    Attack,
    Head,
    Objective,
    Target,
    ce,
    clean_route,
    constant,
    label,
    lip,
    temporal,
)
from hardroute.runtime.errors import MethodError
from hardroute.training.terms import cos, gr, js, kl, nr


@dataclass(frozen=True)
class Step:
    """One step of a schedule.

    Attributes:
        part: which weights move: "moe", "router" or "experts".
        inner: the attack that makes the training clips; None trains on clean ones.
        outer: the loss, minimised at the attacked clips.
        finder: for part "experts": the attack on the router whose Top-2 experts are the weak ones (eq. 13).
        adaptive: shrink each clip's perturbation to what the model can still answer (`losses.within_reach`).
        steep: the outer loss looks at its own gradient with respect to the clip.
        path: the outer loss' gradient path: "switch" scales the winner's logits by its gate, "hard"
            trains on the logits that are deployed.
    """

    part: str
    inner: Attack | None
    outer: Objective
    finder: Attack | None = None
    adaptive: bool = False
    steep: bool = False
    path: str = "switch"


@dataclass(frozen=True)
class Method:
    """A defence.

    Attributes:
        steps: its schedule.
        network: what it trains: the mixture, one network of an expert's size, or a dense one of about the mixture's.
        restore: a restoration network sits before router and experts (hardroute.models.restoration).
        start: the step of the experts in the start (`FitSettings.together`); None: the last of `steps`.
        settings: fields of FitSettings whose default is another one for this method.
    """

    steps: tuple[Step, ...]
    network: Literal["mixture", "single", "dense"] = "mixture"
    restore: bool = False
    start: Step | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def but(self, **settings: Any) -> "Method":
        """The same with other defaults."""
        return replace(self, settings={**self.settings, **settings})


def _last(attack: Attack) -> Attack:
    # The last iterate, not the worst: judging iterates costs a forward pass and starves training of hard clips
    # that have not yet fallen.
    return attack.but(keep="last")


# Inner attacks of the ablation: (step rule, with the Lipschitz term).
INNER = {"tla": (temporal, True), "t-pgd": (temporal, False), "lip": (constant, True), "pgd": (constant, False)}
# Outer terms of the ablation, with the weight that brings them to the size of cross-entropy.
Term = Callable[[Head, Target], Objective]
OUTER: dict[str, tuple[Term, float]] = {
    "lip": (lambda head, towards: lip(head), 1e-3),
    "js": (js, 1.0),
    "cos": (cos, 1.0),
    "kl": (kl, 1.0),
    "nr": (nr, 1e-2),
    "gr": (gr, 1e-2),
}


ADVERSARIAL = Step("moe", _last(ATTACKS["pgd"]), ce(MOE))


def _step(
    part: str, head: Head, towards: Target, inner: str, outer: str, path: str = "switch", finder: Attack | None = None
) -> Step:
    rule, lipschitz = INNER[inner]
    attacked = ce(head, towards) + LAM * lip(head) if lipschitz else ce(head, towards)
    term, _ = OUTER[outer]
    loss = ce(head, towards) + LAM * term(head, towards)
    return Step(part, _last(Attack(attacked, rule, path)), loss, finder, steep=outer == "gr", path=path)


def j_tlat(inner: str = "tla", outer: str = "lip", path: str = "hard") -> Method:
    """Router, then the two weak experts, then the mixture (eq. 12 to 14)."""
    finder = _last(ATTACKS["tlga-r"])
    # Lip counts the size of the router's scores, on which no route depends: they are small from the start.
    small = {"router_gain": 0.005, "router_lam": 600.0} if outer == "lip" else {}
    return Method(
        (
            _step("router", ROUTER, clean_route, inner, outer, path),
            _step("experts", EXPERT, label, inner, outer, path, finder),
            _step("moe", MOE, label, inner, outer, path),
        ),
        start=ADVERSARIAL,
        settings={"lam": OUTER[outer][1], "together": 0.7, "weak": "drawn", "ramp": 0.1, **small},
    )


METHODS: dict[str, Method] = {
    "plain": Method((Step("moe", None, ce(MOE)),)),
    "at-s": Method((ADVERSARIAL,), network="single"),
    "at-d": Method((ADVERSARIAL,), network="dense"),
    "at-m": Method((ADVERSARIAL,)),
    "oud-m": Method((ADVERSARIAL,), restore=True),
    # A curriculum: the budget grows over most of the run.
    "aat-m": Method((Step("moe", _last(ATTACKS["pgd"]), ce(MOE), adaptive=True),), settings={"ramp": 0.7}),
    "tlat": Method((_step("moe", MOE, label, "tla", "lip"),)),
    "j-tlat": j_tlat(),
    # The recipe to the letter: experts apart from the start, both weak ones in every step, logits scaled by the gate,
    # the router's own choice as its target, no balance term, the whole budget at once, one weight of Lip for all parts.
    "j-tlat-printed": j_tlat(path="switch").but(
        together=0.0,
        weak="both",
        assign="argmax",
        balance=0.0,
        ramp=0.0,
        lam=1e-4,
        router_gain=1.0,
        router_lam=1.0,
    ),
    # What of J-TLAT's gain is the common start.
    "at-m-together": Method((ADVERSARIAL,), settings={"together": 0.7}),
}
METHODS |= {f"j-tlat-inner-{inner}": j_tlat(inner=inner) for inner in INNER if inner != "tla"}
METHODS |= {f"j-tlat-outer-{outer}": j_tlat(outer=outer) for outer in OUTER if outer != "lip"}


def find_method(name: str) -> Method:
    """The defence of that name. Raises MethodError, naming the known ones."""
    if name not in METHODS:
        raise MethodError(f"unknown method '{name}': choose one of {', '.join(METHODS)}")
    return METHODS[name]
