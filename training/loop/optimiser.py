"""The optimiser: which weights decay, how the learning rate and the attack's budget move, averaged weights, state."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Tensors = tuple[Tensor, ...] | list[Tensor]
WARM_UP = 0.1  # share of the run


def learning_rate(progress: float) -> float:
    """Share of the peak learning rate at this share of the run: linear warm-up, then a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def budget(progress: float, eps: float, ramp: float) -> float:
    """The inner attack's eps at this share of the run: grows from 0 over the first `ramp` of it."""
    return eps * min(1.0, progress / ramp) if ramp else eps


def adamw(model: nn.Module, lr: float, decay: float) -> torch.optim.AdamW:
    """AdamW that decays the experts' matrices only: decaying the router's scores would pull it towards collapse."""
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1 and not n.startswith("router.")]
    rest = [p for n, p in model.named_parameters() if p.dim() <= 1 or n.startswith("router.")]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def names_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """The parameters' names, in the optimiser's order."""
    by_tensor = {parameter: name for name, parameter in model.named_parameters()}
    return [by_tensor[p] for group in optimizer.param_groups for p in group["params"]]


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter name, so that safetensors can hold them."""
    state = optimizer.state_dict()["state"]
    return {f"{key}:{names[i]}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of optimizer_state, into a fresh optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        key, parameter = name.split(":", 1)
        state.setdefault(names.index(parameter), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class AverageUpdate:
    """How averaged weights follow the model's: an exponential mean whose memory grows with the run, up to its decay.

    The decay of step n is the least of the asked one and (1 + n) / (10 + n), so that the mean is of about the last
    ninth of the steps and forgets where the run began. (With one decay from the start, untrained weights would keep a
    share of decay^n; with Adam's bias correction early weights count as much as late ones until 1 / (1 - decay) steps
    are done, and the average of a short run is no better.) For `torch.optim.swa_utils.AveragedModel`.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averaged: Tensors, current: Tensors, steps: Tensor | int) -> None:
        """Moves `averaged` in place; `steps`: how many it is the mean of already, at least one."""
        share = 1 - min(self.decay, (1 + int(steps)) / (10 + int(steps)))
        if averaged[0].is_floating_point():  # all are of one type
            torch._foreach_lerp_(averaged, current, share)
        else:
            torch._foreach_copy_(averaged, current)
