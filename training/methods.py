"""Every defence by name: a schedule of (trained part, inner attack, outer loss), and the network it is for.

One epoch runs the steps of the schedule one after the other, each over all training clips. A new defence is a new row.
Cells are names, which `hardroute.training.losses` turns into attacks and losses: so a command can list and check
methods without loading torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from hardroute.runtime.errors import MethodError

Part = Literal["moe", "router", "experts"]


@dataclass(frozen=True)
class Step:
    """One step of a schedule.

    Attributes:
        part: which weights move: all, the router's or the experts'; also whose answer inner and outer loss look at.
        inner: the attack that makes the training clips (a name in `losses.INNER`); None trains on clean ones.
        term: what the outer loss, cross-entropy at the attacked clip, has added to it (a name in `terms.TERMS`).
        finder: for part "experts": the attack on the router whose Top-2 experts are the weak ones (eq. 13).
        clean: cross-entropy is taken at the unattacked clip, and only the term at the attacked one.
        adaptive: shrink each clip's perturbation to what the model can still answer (`losses.within_reach`).
        path: the gradient path of both losses: "switch" scales the winner's logits by its gate, "hard" trains on the
            logits that are deployed.
    """

    part: Part
    inner: str | None
    term: str | None = None
    finder: str | None = None
    clean: bool = False
    adaptive: bool = False
    path: str = "switch"


@dataclass(frozen=True)
class Method:
    """A defence.

    Attributes:
        steps: its schedule.
        network: what it trains: the mixture, one network of an expert's size, or a dense one of about the mixture's.
        restore: a restoration network sits before router and experts (hardroute.models.restoration).
        start: the step of the experts in the shared start (`FitSettings.shared_start`); None: the last of `steps`.
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


# Inner attacks and outer terms of J-TLAT's ablation; each term with the weight that brings it to cross-entropy's size.
ABLATED_INNER: Final = ("t-pgd", "lip", "pgd")
ABLATED_TERMS: Final = {"js": 1.0, "cos": 1.0, "kl": 1.0, "nr": 1e-2, "gr": 1e-2}
LIP: Final = 1e-3

ADVERSARIAL: Final = Step("moe", "pgd")


def j_tlat(inner: str = "tla", term: str = "lip", path: str = "hard") -> Method:
    """Router, then the two weak experts, then the mixture (eq. 12 to 14)."""
    # Lip counts the size of the router's scores, on which no route depends: they are small from the start.
    small = {"router_gain": 0.005, "router_lam": 600.0} if term == "lip" else {}
    return Method(
        (
            Step("router", inner, term, path=path),
            Step("experts", inner, term, finder="tlga-r", path=path),
            Step("moe", inner, term, path=path),
        ),
        start=ADVERSARIAL,
        settings={"lam": ABLATED_TERMS.get(term, LIP), "shared_start": 0.7, "weak": "drawn", "ramp": 0.1, **small},
    )


METHODS: dict[str, Method] = {
    "plain": Method((Step("moe", None),)),
    "at-s": Method((ADVERSARIAL,), network="single"),
    "at-d": Method((ADVERSARIAL,), network="dense"),
    "at-m": Method((ADVERSARIAL,)),
    "oud-m": Method((ADVERSARIAL,), restore=True),
    # A curriculum: the budget grows over most of the run.
    "aat-m": Method((Step("moe", "pgd", adaptive=True),), settings={"ramp": 0.7}),
    # Cross-entropy on clean clips, and the divergence of the answers at clean and attacked ones, which the inner attack
    # climbs as well (Zhang et al. 2019, eq. 5, beta 6). Its random start is ours: anywhere in the box.
    "trades": Method((Step("moe", "kl", "kl", clean=True),), settings={"lam": 6.0}),
    # Weights are perturbed to where the loss is higher while its gradient is taken (Wu et al. 2020).
    "awp": Method((ADVERSARIAL,), settings={"weight_eps": 0.005}),
    # One step of 1.25 eps from a random start (Wong et al. 2020).
    "fast-at": Method((Step("moe", "one-step"),)),
    "tlat": Method((Step("moe", "tla", "lip"),)),
    "j-tlat": j_tlat(),
    # The recipe to the letter: experts apart from the start, both weak ones in every step, logits scaled by the gate,
    # the router's own choice as its target, no balance term, the whole budget at once, one weight of Lip for all parts.
    "j-tlat-printed": j_tlat(path="switch").but(
        shared_start=0.0,
        weak="both",
        assign="argmax",
        balance=0.0,
        ramp=0.0,
        lam=1e-4,
        router_gain=1.0,
        router_lam=1.0,
    ),
    # What of J-TLAT's gain is the shared start.
    "at-m-together": Method((ADVERSARIAL,), settings={"shared_start": 0.7}),
}
METHODS |= {f"j-tlat-inner-{inner}": j_tlat(inner=inner) for inner in ABLATED_INNER}
METHODS |= {f"j-tlat-outer-{term}": j_tlat(term=term) for term in ABLATED_TERMS}


def find_method(name: str) -> Method:
    """The defence of that name. Raises MethodError, naming the known ones."""
    if name not in METHODS:
        raise MethodError(f"unknown method '{name}': choose one of {', '.join(METHODS)}")
    return METHODS[name]
