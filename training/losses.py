"""The loss of one step of a schedule on one batch: attack the clips, then take the outer loss where they land."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

from hardroute.audit.attacks import (
    EXPERT,
    LAM,
    MOE,
    ROUTER,
    Attack,
    Head,
    Objective,
    Reference,
    Settings,
    Target,
    ce,
    clean_route,
    find_attack,
    frozen,
    label,
    lip,
    temporal,
)
from hardroute.models import VideoMoE
from hardroute.training.balance import balanced_assignment, load_balance
from hardroute.training.methods import Part, Step
from hardroute.training.precision import Precision
from hardroute.training.settings import FitSettings
from hardroute.training.terms import OF_THE_CLIP, TERMS

Noise = Callable[[Tensor], Tensor]
SHARES: Final = (0.75, 0.5, 0.25)  # a clip that none of them saves keeps the last

# Whose answer a step's losses look at, and what it should be.
AIMS: Final[dict[Part, tuple[Head, Target]]] = {
    "moe": (MOE, label),
    "experts": (EXPERT, label),
    "router": (ROUTER, clean_route),
}
# (head, what it should answer) -> the attack, by the names that steps of `hardroute.training.methods` have.
INNER: Final[dict[str, Callable[[Head, Target], Attack]]] = {
    "pgd": lambda head, towards: Attack(ce(head, towards)),
    "lip": lambda head, towards: Attack(ce(head, towards) + LAM * lip(head)),
    "t-pgd": lambda head, towards: Attack(ce(head, towards), temporal),
    "tla": lambda head, towards: Attack(ce(head, towards) + LAM * lip(head), temporal),
}


@cache
def inner_attack(step: Step) -> Attack | None:
    """The attack that makes a step's training clips; None for clean ones."""
    return None if step.inner is None else _last(INNER[step.inner](*AIMS[step.part])).but(path=step.path)


@cache
def finder(step: Step) -> Attack | None:
    """The attack on the router that leads to a step's weak experts; None where the step looks for none."""
    return None if step.finder is None else _last(find_attack(step.finder))


@cache
def outer_loss(step: Step) -> Objective:
    """What a step minimises at the attacked clips, one number for each."""
    aim = AIMS[step.part]
    return ce(*aim) if step.term is None else ce(*aim) + LAM * TERMS[step.term](*aim)


def _last(attack: Attack) -> Attack:
    # The last iterate, not the worst: judging iterates costs a forward pass and starves training of hard clips
    # that have not yet fallen.
    return attack.but(keep="last")


@dataclass(frozen=True)
class Attacked:
    """Clips that a step trains on: x_adv (N, C, T, H, W), the expert (N,) that its loss looks at, weights (N,)."""

    x_adv: Tensor
    expert: Tensor | None = None
    weight: Tensor | float = 1.0


def weak_experts(
    step: Step, model: VideoMoE, x: Tensor, y: Tensor, eps: float, fit: FitSettings, noise: Noise
) -> list[tuple[Tensor, Tensor]]:
    """The two experts that a guided router attack leads to, as [(index (N,), weight (N,)), ...] (eq. 13).

    Weights are the router's softmax over those two at the attacked clip, so that both experts learn; no gradient. With
    `fit.weak` "drawn" it is one of the two, with its weight as its chance: half the work, the same gradient on average.
    """
    attack = finder(step)
    assert attack is not None  # noqa: S101
    x_adv = attack(model, x, y, eps, fit.inner_steps, noise=noise(x), lam=fit.inner_lam)
    with frozen(model), torch.no_grad():
        top = model.outputs(x_adv).router.topk(min(2, len(model.experts)), dim=1)
    weights = top.values.softmax(1)
    if fit.weak == "drawn":
        chance = (noise(weights[:, :1]) + 1) / 2
        return [(top.indices.gather(1, (weights[:, :1] < chance).long()).flatten(), torch.ones_like(weights[:, 0]))]
    return [(top.indices[:, i], weights[:, i]) for i in range(top.indices.shape[1])]


def within_reach(model: VideoMoE, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """x_adv, drawn back towards x for the clips it fools: to the first of SHARES of the way that the model gets right.

    An adaptive budget per clip, after Kinfu and Vidal (2022): a clip that is hard already is not pushed further.
    """
    kept = x_adv.clone()
    with frozen(model), torch.no_grad():
        left = (model(kept).argmax(1) != y).nonzero().flatten()
        for share in SHARES:
            if not len(left):
                break
            kept[left] = x[left] + share * (x_adv[left] - x[left])
            left = left[model(kept[left]).argmax(1) != y[left]]
    return kept


def attacked(
    step: Step, model: VideoMoE, x: Tensor, y: Tensor, eps: float, fit: FitSettings, noise: Noise
) -> list[Attacked]:
    """The clips that a step trains on. The attacks see `model` in eval mode."""
    aims: list[tuple[Tensor | None, Tensor | float]] = [(None, 1.0)]
    if step.finder is not None:
        aims = [*weak_experts(step, model, x, y, eps, fit, noise)]
    found = []
    for expert, weight in aims:
        x_adv = x
        if (attack := inner_attack(step)) is not None:
            x_adv = attack(model, x, y, eps, fit.inner_steps, noise=noise(x), aim=expert, lam=fit.inner_lam)
        if step.adaptive:
            x_adv = within_reach(model, x, x_adv, y)
        x_adv = x_adv.detach().requires_grad_(step.term in OF_THE_CLIP)
        found.append(Attacked(x_adv, expert, weight))
    return found


def loss_at(step: Step, model: VideoMoE, x: Tensor, y: Tensor, clips: list[Attacked], fit: FitSettings) -> Tensor:
    """Scalar outer loss of one step at the attacked clips, in the mode that the model is in."""
    total = x.new_zeros(())
    settings = Settings(lam=fit.lam * (fit.router_lam if step.part == "router" else 1.0))
    for each in clips:
        reference = Reference(model, x, y, step.path, each.expert, differentiable=True)
        if fit.assign == "balanced" and step.part == "router":
            # The paper's target, the router's own choice, rewards a router for choosing one expert for all.
            reference.assigned = balanced_assignment(reference.outputs.router)
        outputs = model.outputs(each.x_adv, step.path)
        total = total + (each.weight * outer_loss(step)(outputs, each.x_adv, reference, settings)).mean()
        if step.part != "experts" and len(model.experts) > 1:
            total = total + fit.balance * load_balance(outputs.router)
    return total


def step_loss(
    step: Step,
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    eps: float,
    fit: FitSettings,
    noise: Noise,
    precision: Precision | None = None,
    twin: VideoMoE | None = None,
) -> Tensor:
    """Scalar loss of one step on clips x (N, C, T, H, W) with labels y (N,), attacked within eps.

    The outer loss is taken in the mode that the model is in. `twin`: what is attacked in the model's place, if another
    one gives the same outputs in eval mode for less (models.Folded).
    """
    precision = precision or Precision("fp32", "cpu")
    with precision.attack():
        clips = attacked(step, twin or model, x, y, eps, fit, noise)
    with precision.loss():
        return loss_at(step, model, x, y, clips, fit)
