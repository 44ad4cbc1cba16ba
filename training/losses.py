"""The loss of one step of a schedule on one batch: attack the clips, then take the outer loss where they land."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

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
from hardroute.training.terms import OF_THE_CLIP, TERMS, kl

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
    "kl": lambda head, towards: Attack(kl(head, towards)),
    "one-step": lambda head, towards: Attack(ce(head, towards), budget=1, settings=Settings(rel_stepsize=1.25)),
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
    """What a step minimises, one number for each."""
    aim = AIMS[step.part]
    first = ce_clean(*aim) if step.clean else ce(*aim)
    return first if step.term is None else first + LAM * TERMS[step.term](*aim)


def ce_clean(head: Head, towards: Target) -> Objective:
    """Cross-entropy of a head's logits at the unattacked clip."""
    return Objective(lambda out, x, ref, s: cross_entropy(ref.clean(head), towards(ref), reduction="none"))


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


def step_gradients(
    step: Step,
    model: VideoMoE,
    x: Tensor,
    y: Tensor,
    eps: float,
    fit: FitSettings,
    noise: Noise,
    precision: Precision | None = None,
    twin: VideoMoE | None = None,
    share: float = 1.0,
) -> Tensor:
    """Adds the gradients of one step's loss on clips x (N, C, T, H, W) with labels y (N,), attacked within eps.

    The outer loss is taken in the mode that the model is in.

    Args:
        twin: what is attacked in the model's place, if another one gives the same outputs in eval mode for less
            (models.Folded).
        share: what the gradients are multiplied by.

    Returns:
        The loss, a scalar without a graph.
    """
    precision = precision or Precision("fp32", "cpu")
    with precision.attack():
        clips = attacked(step, twin or model, x, y, eps, fit, noise)

    def loss() -> Tensor:
        with precision.loss():
            return loss_at(step, model, x, y, clips, fit)

    with perturbed_weights(model, lambda: precision.scaled(loss()), fit.weight_eps):
        found = loss()
        precision.scaled(found * share).backward()
    return found.detach()


@contextmanager
def perturbed_weights(model: nn.Module, loss: Callable[[], Tensor], size: float) -> Iterator[None]:
    """Inside, each weight matrix w is w + size ||w|| g / ||g||, with g the gradient of the loss; afterwards w again.

    Adversarial weight perturbation (Wu et al. 2020, eq. 8 to 10), in one step. Only weights that take gradients are
    perturbed, and no statistics are gathered by the pass that finds g.

    Args:
        loss: computes the loss with the weights as they are.
    """
    if not size:
        yield
        return
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() > 1]
    kept, gathered = ([(t, t.detach().clone()) for t in tensors] for tensors in (weights, model.buffers()))
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    with torch.no_grad():
        put_back(gathered)
        for weight, gradient in zip(weights, gradients, strict=True):
            norm = torch.zeros(()) if gradient is None else gradient.norm()
            # A loss that does not depend on a weight leaves it; one that is not finite is for the trainer to skip.
            if gradient is not None and norm > 0 and norm.isfinite():
                weight.add_(gradient, alpha=(size * weight.norm() / norm).item())
    try:
        yield
    finally:
        put_back(kept)


@torch.no_grad()
def put_back(kept: list[tuple[Tensor, Tensor]]) -> None:
    """Each tensor takes the value that was kept of it, to the last bit."""
    for tensor, before in kept:
        tensor.copy_(before)
