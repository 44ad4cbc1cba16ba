"""Is a stronger attack stronger? Where it is not, gradients mislead it, and its robust accuracy means nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from pydantic import JsonValue
from torch import Tensor

from hardroute.audit.attacks import find_attack
from hardroute.audit.checks.check import Check, Judgement, at_least, at_most
from hardroute.audit.checks.context import Context
from hardroute.audit.evaluation.statistics import Proportion, one_sided
from hardroute.audit.policy import Policy

# Scale-free, through the dispatch as deployed: neither saturation nor a gate's scaling excuses its failure.
PROBE = "pgd-margin"
MIN_P = 0.01  # of all sign tests together: below it, a weaker attack is the stronger


@dataclass(frozen=True)
class Comparison:
    """Two attacks on the same clips, of which the second should fell at least as many.

    Attributes:
        weaker, stronger: what they are. weaker_only, stronger_only: clips that only this one fells.
    """

    weaker: str
    stronger: str
    weaker_only: int
    stronger_only: int

    @property
    def p(self) -> float:
        """One-sided sign test: how probable so many surprises are if neither attack is the stronger."""
        return one_sided(self.weaker_only, self.stronger_only)


@dataclass(frozen=True)
class Strength:
    """`comparisons` of attacks on n `clips`."""

    comparisons: tuple[Comparison, ...]
    clips: int


def measure(context: Context, probe: Callable[..., Tensor] | None = None) -> Strength:
    """One attack at several strengths; `probe`: the attack, by default PROBE."""
    row, eps, steps = find_attack(PROBE), context.eps, context.steps
    attack, once = probe or row, probe or row.but(single_step=True)
    strong = context.felled(PROBE, attack, eps, steps)
    pairs = (
        (f"half of eps {eps * 255:g}/255", "the whole of it", context.felled(PROBE, attack, eps / 2, steps), strong),
        ("one step", f"{steps} steps", context.felled(PROBE, once, eps, 1), strong),
        (f"{steps} steps", f"{2 * steps} steps", strong, context.felled(PROBE, attack, eps, 2 * steps)),
    )
    return Strength(
        tuple(
            Comparison(weaker, stronger, int((first & ~second).sum()), int((second & ~first).sum()))
            for weaker, stronger, first, second in pairs
        ),
        len(context.sample),
    )


def effort(steps: int) -> int:
    """The whole radius, half of it, one step, and twice the steps."""
    return steps + steps + 1 + 2 * steps


def judge(found: Strength, policy: Policy) -> Judgement:
    return at_least(_worst(found).p, MIN_P / len(found.comparisons))


def describe(found: Strength, judged: Judgement) -> str:
    worst = _worst(found)
    return (
        f"Of {found.clips} clips right unattacked, {worst.weaker} fells {worst.weaker_only} that {worst.stronger} "
        f"leaves standing, and {worst.stronger_only} the other way round (p of a sign test; the worst of "
        f"{len(found.comparisons)} comparisons)."
    )


def record(found: Strength) -> Mapping[str, JsonValue]:
    return {"clips": found.clips, "comparisons": [{**asdict(each), "p": each.p} for each in found.comparisons]}


def _worst(found: Strength) -> Comparison:
    return min(found.comparisons, key=lambda each: each.p)


def noise_only(context: Context) -> Proportion:
    """Clips that random noise fells and the whole suite does not."""
    fell = context.felled("noise", find_attack("noise"), context.eps, context.steps)
    return Proportion.of(fell & context.evaluation.robust[context.eps][context.sample])


def _judge_noise(found: Proportion, policy: Policy) -> Judgement:
    return at_most(found.successes, 0)


def _say_noise(found: Proportion, judged: Judgement) -> str:
    return f"Random noise fells {found.successes} of {found.n} clips that every attack of the suite leaves standing."


STRONGER = Check("stronger is stronger", measure, judge, describe, record, effort)
NOISE = Check(
    "noise is weaker",
    noise_only,
    _judge_noise,
    _say_noise,
    record=lambda found: {"noise_only": found.as_dict()},
    effort=lambda steps: steps,
)
