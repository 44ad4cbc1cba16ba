"""The loss of one step of a schedule on one batch: attack the clips, then take the outer loss where they land."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hardroute.audit.attacks import Reference, Settings, frozen
from hardroute.models import VideoMoE
from hardroute.training.balance import balanced_assignment, load_balance
from hardroute.training.loop.precision import Precision
from hardroute.training.methods import Step
from hardroute.training.settings import FitSettings

Noise = Callable[[Tensor], Tensor]
SHARES = (0.75, 0.5, 0.25)  # a clip that none of them saves keeps the last


def weak_experts(
    step: Step, model: VideoMoE, x: Tensor, y: Tensor, eps: float, fit: FitSettings, noise: Noise
) -> list[tuple[Tensor, Tensor]]:
    """The two experts that a guided router attack leads to, as [(index (N,), weight (N,)), ...] (eq. 13).

    Weights are the router's softmax over those two at the attacked clip, so that both experts learn; no gradient. With
    `fit.weak` "drawn" it is one of the two, with its weight as its chance: half the work, the same gradient on average.
    """
    assert step.finder is not None  # noqa: S101
    x_adv = step.finder(model, x, y, eps, fit.inner_steps, noise=noise(x), lam=fit.inner_lam)
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
) -> list[tuple[Tensor, Tensor | None, Tensor | float]]:
    """The clips that a step trains on, as [(x_adv, expert that its loss looks at or None, weight), ...].

    The attacks see `model` in eval mode.
    """
    aims: Sequence[tuple[Tensor | None, Tensor | float]] = [(None, 1.0)]
    if step.finder is not None:
        aims = weak_experts(step, model, x, y, eps, fit, noise)
    found = []
    for aim, weight in aims:
        x_adv = x
        if step.inner is not None:
            x_adv = step.inner(model, x, y, eps, fit.inner_steps, noise=noise(x), aim=aim, lam=fit.inner_lam)
        if step.adaptive:
            x_adv = within_reach(model, x, x_adv, y)
        found.append((x_adv.detach().requires_grad_(step.steep), aim, weight))
    return found


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
    total = x.new_zeros(())
    settings = Settings(lam=fit.lam * (fit.router_lam if step.part == "router" else 1.0))
    with precision.loss():
        for x_adv, aim, weight in clips:
            reference = Reference(model, x, y, step.path, aim, differentiable=True)
            if fit.assign == "balanced" and step.part == "router":
                # The paper's target, the router's own choice, rewards a router for choosing one expert for all.
                reference.assigned = balanced_assignment(reference.outputs.router)
            outputs = model.outputs(x_adv, step.path)
            total = total + (weight * step.outer(outputs, x_adv, reference, settings)).mean()
            if step.part != "experts" and len(model.experts) > 1:
                total = total + fit.balance * load_balance(outputs.router)
    return total
