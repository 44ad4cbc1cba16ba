"""PGD and FGSM of each library behind one call, set up beforehand so that a timing holds the attack alone."""

from __future__ import annotations

from collections.abc import Callable

import foolbox
import torch
import torchattacks
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

# () -> x_adv
Run = Callable[[], Tensor]


def with_torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, size: float, steps: int, random_start: bool
) -> Run:
    if steps == 1:
        return lambda: torchattacks.FGSM(model, eps=eps)(x, y)
    attack = torchattacks.PGD(model, eps=eps, alpha=size, steps=steps, random_start=random_start)
    return lambda: attack(x, y)


def with_foolbox(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, size: float, steps: int, random_start: bool
) -> Run:
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=steps, random_start=random_start)
    if steps == 1:
        attack = foolbox.attacks.LinfFastGradientAttack(random_start=random_start)
    return lambda: attack.run(bounded, x, y, epsilon=eps)


def with_art(model: nn.Module, x: Tensor, y: Tensor, eps: float, size: float, steps: int, random_start: bool) -> Run:
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    estimator = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1), device_type="cpu"
    )
    attack = ProjectedGradientDescent(
        estimator,
        eps=eps,
        eps_step=size,
        max_iter=steps,
        num_random_init=int(random_start),
        batch_size=len(x),
        verbose=False,
    )
    if steps == 1:
        attack = FastGradientMethod(estimator, eps=eps, num_random_init=int(random_start), batch_size=len(x))
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


LIBRARIES: dict[str, Callable[..., Run]] = {
    "torchattacks": with_torchattacks,
    "foolbox": with_foolbox,
    "adversarial-robustness-toolbox": with_art,
}
