"""What the checks measure on: the model and its clips, what the audit found so far, and a sample to attack again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from hardroute.audit.attacks.budget import verify
from hardroute.audit.attacks.model_state import device_of
from hardroute.audit.defaults import BATCH_SIZE
from hardroute.audit.evaluation.attack_batch import Answer, judge
from hardroute.audit.evaluation.attack_run import AttackFunction
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.replay import Agreement
from hardroute.audit.evaluation.transfer import Transferred
from hardroute.audit.policy import Policy
from hardroute.models import VideoMoE

# Clips that attacks are compared on: with 64, an attack that loses 9 of them and wins none is seen.
SAMPLE = 64


# Not frozen: what several checks need is made once, when the first asks for it.
@dataclass
class Context:
    """One model under one policy.

    Attributes:
        model: while checks measure, in eval mode and frozen.
        x: clips (N, 3, T, H, W) in [0, 1]. y: labels (N,).
        evaluation: what the suite found. agreement: how the deployed runtime answered the same clips.
        policy: says how strong the attacks are; what it asks for is for `judge`.
        foreign: what clips made on other models did, if there were any.
        sample_size: clips that are attacked again, at most.
        tick: called with the steps times clips that an attack of a check has just done.
        training: names of the modules that were in training mode when this was made.
    """

    model: VideoMoE
    x: Tensor
    y: Tensor
    evaluation: Evaluation
    agreement: Agreement
    policy: Policy
    foreign: Transferred | None = None
    sample_size: int = SAMPLE
    tick: Callable[[int], None] = lambda steps: None
    training: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Now: while checks measure, the model is in eval mode.
        self.training = tuple(name or "model" for name, module in self.model.named_modules() if module.training)

    @property
    def eps(self) -> float:
        """The radius that decides, in pixel range [0, 1]."""
        return self.policy.attacks.gate_eps / 255

    @property
    def steps(self) -> int:
        return self.policy.attacks.steps

    @property
    def seed(self) -> int:
        return self.policy.attacks.seed

    @cached_property
    def sample(self) -> np.ndarray:
        """(n,) indices, spread over the clips that are right unattacked; over all clips where none is.

        A clip that is wrong anyway says nothing of an attack.
        """
        clean = self.evaluation.clean
        known = np.flatnonzero(clean) if clean.any() else np.arange(len(clean))
        return known[np.linspace(0, len(known) - 1, min(len(known), self.sample_size)).round().astype(int)]

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Clips and labels of the sample, at most BATCH_SIZE at once, where the model is."""
        device = device_of(self.model)
        clips, labels = self.x[self.sample].to(device), self.y[self.sample].to(device)
        return list(zip(clips.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))

    @property
    def labels(self) -> np.ndarray:
        """(n,) true classes of the sample."""
        return self.y[self.sample].cpu().numpy()

    def ask(self) -> list[Answer]:
        """A fresh forward of each batch of the sample."""
        return [judge(self.model, *batch) for batch in self.batches]

    @cached_property
    def answers(self) -> list[Answer]:
        """The first forward of each batch of the sample."""
        return self.ask()

    @property
    def chance(self) -> float:
        return 1 / self.answers[0].logits.shape[1]

    def attacked(self, name: str, attack: AttackFunction, eps: float, steps: int) -> np.ndarray:
        """(n,) class of each clip of the sample under an attack. Raises BudgetError, with `name`, if it cheats."""
        found = []
        for clips, labels in self.batches:
            x_adv = attack(self.model, clips.clone(), labels.clone(), eps=eps, steps=steps, seed=self.seed)
            verify(name, clips, x_adv, eps)
            found.append(judge(self.model, x_adv.detach(), labels).label)
            self.tick(steps * len(clips))
        return np.concatenate(found)

    def felled(self, name: str, attack: AttackFunction, eps: float, steps: int) -> np.ndarray:
        """(n,) bool: clips of the sample that are wrong under an attack."""
        fell: np.ndarray = self.attacked(name, attack, eps, steps) != self.labels
        return fell
