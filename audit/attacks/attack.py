"""An attack is a row: objective x step rule x gradient path."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hardroute.audit.attacks.batch_invariance import batch_invariant
from hardroute.audit.attacks.loop import Climb, Worst, ascend, frozen
from hardroute.audit.attacks.noise import per_clip
from hardroute.audit.attacks.objectives import Objective
from hardroute.audit.attacks.reference import Reference
from hardroute.audit.attacks.settings import Settings
from hardroute.audit.attacks.steps import Rule, constant
from hardroute.audit.attacks.validation import answers, validate_clips, validate_model
from hardroute.audit.defaults import EPS, STEPS
from hardroute.models import VideoMoE
from hardroute.runtime.errors import MethodError

# (climb, start, rule=, eps=, steps=, seed=, worst=) -> x_adv, entering each iterate inside the box into `worst`.
# `start` is the search's own to overwrite.
Search = Callable[..., Tensor]


@dataclass(frozen=True)
class Attack:
    """One row of the table of attacks; call it to attack a batch.

    Attributes:
        objective: what is maximised. rule: step rule. path: gradient path (a name in models.gradient_paths.PATHS).
        random_start: start anywhere in the eps-box rather than at the clean clip.
        single_step: one step of the whole eps, whatever `steps` says.
        every_expert: run once for each expert as the aim of the objective and keep the worst.
        rivals: run once for each of this many wrong classes as well, the likeliest first; 0 for no such target.
        search: how the objective is climbed; sign steps by `rule` unless it says otherwise.
        budget: iterations (or queries) of the search where a standard fixes them, whatever `steps` says.
        then: rows that go on with the clips still standing, as AutoAttack does.
        keep: "worst" iterate per clip or the "last" (for a comparison with implementations that return the last).
        settings: the constants.
    """

    objective: Objective
    rule: Callable[[Settings, int], Rule] = constant
    path: str = "switch"
    random_start: bool = True
    single_step: bool = False
    every_expert: bool = False
    rivals: int = 0
    search: Search = ascend
    budget: int | None = None
    then: "tuple[Attack, ...]" = ()
    keep: str = "worst"
    settings: Settings = field(default_factory=Settings)

    def __call__(
        self,
        model: VideoMoE,
        x: Tensor,
        y: Tensor,
        eps: float = EPS,
        steps: int = STEPS,
        seed: int = 0,
        noise: Tensor | None = None,
        aim: Tensor | None = None,
        alpha: float | None = None,
        **settings: Any,
    ) -> Tensor:
        """Adversarial clips x_adv (N, C, T, H, W), within eps of x in every pixel and within [0, 1].

        Args:
            model: the model; its mode, gradients and buffers are left as they were.
            x: clean clips (N, C, T, H, W) in [0, 1]. y: labels (N,).
            eps: L-infinity budget in raw pixels. steps: forward-backward passes per start.
            seed: fixes the random start of each clip, whatever batch the clip comes in.
            noise: random start to use instead, in [-1, 1] of the shape of x (training draws its own).
            aim: (N,) expert that an expert-wise objective looks at, instead of the clean route.
            alpha: step size in raw pixels, such as 2/255; for a share of eps give the setting rel_stepsize.
            settings: constants of `Settings` to override, such as lam=0.

        Raises:
            MethodError: clips outside [0, 1] or not float32, labels that are no class, another shape, an argument out
                of range, or a model made in inference mode.
        """
        validate_clips(x, y, eps)
        validate_model(model)
        if steps < 1:
            raise MethodError(f"an attack needs at least one step; got {steps}")
        chosen = replace(self.settings, **settings)
        if alpha is not None:
            chosen = replace(chosen, rel_stepsize=_share(alpha, eps))
        if self.single_step:
            steps, chosen = 1, replace(chosen, rel_stepsize=1.0)
        # A caller in inference mode, where nothing has a gradient, gets the same as any other.
        with torch.inference_mode(False), frozen(model), batch_invariant(model):
            x, y = _outside(x.detach()), _outside(y.long())
            noise, aim = (each if each is None else _outside(each) for each in (noise, aim))
            x_adv = self._search(model, x, y, eps, steps, seed, noise, aim, chosen)
            for row in self.then:
                with torch.no_grad():
                    left = (answers(model.outputs(x_adv)) == y).nonzero().flatten()
                if len(left):
                    x_adv[left] = row(model, x[left], y[left], eps, steps, seed)
        return x_adv.detach()

    def _search(
        self,
        model: VideoMoE,
        x: Tensor,
        y: Tensor,
        eps: float,
        steps: int,
        seed: int,
        noise: Tensor | None,
        aim: Tensor | None,
        settings: Settings,
    ) -> Tensor:
        """One run of the search for each target; with keep="worst", of clips that have not fallen yet."""
        worst, left = Worst(x), torch.arange(len(x), device=x.device)
        for expert, rank in self._targets(model, x):
            reference = Reference(model, x, y, self.path, aim, rank=rank)
            if expert is not None:
                reference.aim = torch.full_like(y, expert)
            if self.keep == "worst":
                left = (~worst.fooled).nonzero().flatten()
                if not len(left):
                    break
                reference = reference.part(left)
            part = worst.part(left)
            last = self.search(
                Climb(self.objective, reference, settings),
                self._start(reference.x, eps, seed + rank, None if noise is None else noise[left]),
                rule=self.rule(settings, steps),
                eps=eps,
                steps=self.budget or steps,
                seed=seed,
                worst=part if self.keep == "worst" else None,
            )
            worst.join(left, part)
        return worst.x if self.keep == "worst" else last

    def _start(self, x: Tensor, eps: float, seed: int, noise: Tensor | None) -> Tensor:
        """Where the search begins, in the memory of the noise or, without a random start, its own."""
        if not self.random_start:
            return x.clone()
        return (per_clip(x, seed) if noise is None else noise).mul_(eps).add_(x)

    def _targets(self, model: VideoMoE, x: Tensor) -> Iterator[tuple[int | None, int]]:
        """Every (expert, rank of the wrong class) that the objective is to look at, one run each."""
        ranks = 1
        if self.rivals:
            with torch.no_grad():
                ranks = min(self.rivals, model(x[:1]).shape[1] - 1)
        for expert in range(len(model.experts)) if self.every_expert else [None]:
            for rank in range(ranks):
                yield expert, rank

    def describe(self, steps: int, experts: int) -> dict[str, Any]:
        """What a report says of the row, when run with `steps` on a mixture of `experts`."""
        return {
            "steps": 1 if self.single_step else self.budget or steps,
            "search": self.search.__name__,
            "runs": experts if self.every_expert else 1,
            "wrong_classes": self.rivals,
            "step_rule": self.rule.__name__,
            "path": self.path,
            "random_start": self.random_start,
            "keeps": self.keep,
            "settings": asdict(self.settings),
        }

    def but(self, **cells: Any) -> "Attack":
        """The same row with other cells, such as `PGD.but(path="soft")`."""
        return replace(self, **cells)


def _share(alpha: float, eps: float) -> float:
    """A step in raw pixels as a share of eps."""
    if not 0 < alpha <= max(2 * eps, alpha * (eps == 0)):
        raise MethodError(
            f"alpha is a step in raw pixels, above 0 and at most 2 eps = {2 * eps:.4g}, across the box; got {alpha}; "
            "a share of eps is called rel_stepsize"
        )
    return alpha / eps if eps else 1.0


def _outside(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that can be part of a graph where it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor
