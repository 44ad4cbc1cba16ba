"""Every defence by name: a schedule of (trained part, inner attack, outer loss).

One epoch runs the steps of the schedule one after the other, each over all training clips. A new defence is a new row.
"""

from dataclasses import dataclass

from audit.attacks import ATTACKS, L_EXPERT, L_MOE, L_ROUTER, Attack
from audit.attacks.objectives import MOE, Objective, ce
from runtime.errors import MethodError


@dataclass(frozen=True)
class Step:
    """One step of a schedule.

    Attributes:
        part: which weights move: "moe", "router" or "experts".
        inner: the attack that makes the training clips; None trains on clean ones.
        outer: the loss, minimised at the attacked clips.
        finder: for part "experts": the attack on the router whose Top-2 experts are the weak ones (eq. 13).
    """

    part: str
    inner: Attack | None
    outer: Objective
    finder: Attack | None = None


def _inner(name: str) -> Attack:
    # The last iterate, not the worst: judging iterates costs a forward pass and starves training of hard clips
    # that have not yet fallen.
    return ATTACKS[name].but(keep="last")


METHODS: dict[str, tuple[Step, ...]] = {
    "plain": (Step("moe", None, ce(MOE)),),
    "at-m": (Step("moe", _inner("pgd"), ce(MOE)),),
    "tlat": (Step("moe", _inner("tla-m"), L_MOE),),
    "j-tlat": (
        Step("router", _inner("tla-r"), L_ROUTER),
        Step("experts", _inner("tla-e"), L_EXPERT, finder=_inner("tlga-r")),
        Step("moe", _inner("tla-m"), L_MOE),
    ),
}


def find_method(name: str) -> tuple[Step, ...]:
    """The schedule of that name. Raises MethodError, naming the known ones."""
    if name not in METHODS:
        raise MethodError(f"unknown method '{name}': choose one of {', '.join(METHODS)}")
    return METHODS[name]
