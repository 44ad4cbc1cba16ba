"""The figures of a report: what one eps and one attack came to."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue, SerializerFunctionWrapHandler, model_serializer

from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.measures import distribution, summary
from hardroute.audit.evaluation.replay import Agreement, worst_case
from hardroute.audit.evaluation.statistics import Proportion, load_entropy, load_of


class Section(BaseModel):
    """A part of report.json. What a later writer of the same schema version added is not looked at."""

    # JSON has no infinity and no NaN: where there may be none, a field is null instead.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Rate(Section):
    """`successes` of `n`, as a share with its Wilson interval; without observations the share is None."""

    successes: int
    n: int
    share: float | None
    low: float
    high: float
    confidence: float

    @classmethod
    def of(cls, found: Proportion | np.ndarray) -> Rate:
        """From a proportion, or from outcomes (N,) bool."""
        proportion = found if isinstance(found, Proportion) else Proportion.of(found)
        return cls.model_validate(proportion.as_dict())


class Summary(Section):
    """Of n values: mean with its 95 % interval, median and maximum; None without values."""

    n: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    median: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, values: np.ndarray) -> Summary:
        """From values (N,), NaN where nothing was measured."""
        return cls.model_validate(summary(values))


class Distribution(Summary):
    """And how many of them fall into each of equal bins of [0, 1]."""

    histogram: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: np.ndarray) -> Distribution:
        return cls.model_validate(distribution(values))


class Load(Section):
    """Share of the clips that each expert gets, and the entropy of that as a share of the greatest possible."""

    load: tuple[float, ...]
    entropy: float

    @classmethod
    def of(cls, routes: np.ndarray, experts: int) -> Load:
        """From the expert that each clip gets."""
        shares = load_of(routes, experts)
        return cls(load=tuple(shares.tolist()), entropy=load_entropy(shares))


class AttackSettings(Section):
    """How an attack was run; only its name where it is none of ATTACKS."""

    name: str
    seed: int | None = None
    steps: int | None = None
    search: str | None = None
    runs: int = 1
    wrong_classes: int = 0
    step_rule: str | None = None
    path: str | None = None
    random_start: bool = False
    keeps: str | None = None
    settings: dict[str, JsonValue] = {}

    @classmethod
    def of(cls, name: str, evaluation: Evaluation) -> AttackSettings:
        row = ATTACKS.get(name)
        if row is None:
            return cls(name=name)
        described = row.describe(evaluation.steps, evaluation.experts)
        return cls.model_validate({"name": name, "seed": evaluation.seed, **described})

    @model_serializer(mode="wrap")
    def _only_what_is_known(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key in self.model_fields_set}


class UnderAttack(Section):
    """What one attack came to at one eps.

    Attributes:
        accuracy: of all clips in a thorough audit, else of those `tested`, that no attack before had felled.
        route_flips: of the clips tested, those it sends to another expert.
        router_iou, model_iou: overlap of the softmaxes before and after. router_slope, model_slope: Lips-R and Lips-J.
        load_before, load_after: of the clips tested, so that only the attack differs.
    """

    accuracy: Rate
    tested: int = 0
    route_flips: Rate
    router_iou: Distribution = Distribution()
    model_iou: Distribution = Distribution()
    router_slope: Summary = Summary()
    model_slope: Summary = Summary()
    load_before: Load | None = None
    load_after: Load | None = None

    @classmethod
    def of(cls, name: str, eps: float, evaluation: Evaluation) -> UnderAttack:
        tested, measures = evaluation.tested[name][eps], evaluation.measures[name][eps]
        return cls(
            accuracy=Rate.of(evaluation.accuracy(name, eps)),
            tested=int(tested.sum()),
            route_flips=Rate.of(evaluation.flips(name, eps)),
            router_iou=Distribution.of(measures.router_iou),
            model_iou=Distribution.of(measures.model_iou),
            router_slope=Summary.of(measures.router_slope),
            model_slope=Summary.of(measures.model_slope),
            load_before=Load.of(evaluation.clean_route[tested], evaluation.experts),
            load_after=Load.of(evaluation.route[name][eps][tested], evaluation.experts),
        )


class AttackedLoad(Load):
    """Where the worst perturbation found sends the clips; `flips`: of those right unattacked, to another expert."""

    flips: Rate


class AtEps(Section):
    """All that was found at one eps.

    Attributes:
        eps_255: in 1/255 of the pixel range.
        worst_case: right in twin and runtime, unattacked and under all attacks up to here. audited: in the twin alone.
        deployed_on_replay: the runtime on the worst 8-bit clips. agreement_on_replay: as the twin answers them.
    """

    eps_255: float
    worst_case: Rate
    audited: Rate
    deployed_on_replay: Rate
    agreement_on_replay: Rate
    per_attack: dict[str, UnderAttack]
    router: AttackedLoad

    @classmethod
    def of(cls, eps: float, evaluation: Evaluation, agreement: Agreement) -> AtEps:
        routes = evaluation.adversarial_route[eps]
        flips = Rate.of((routes != evaluation.clean_route)[evaluation.clean])
        load = Load.of(routes, evaluation.experts)
        return cls(
            eps_255=in_255(eps),
            worst_case=Rate.of(worst_case(evaluation, agreement, eps)),
            audited=Rate.of(evaluation.robust[eps]),
            deployed_on_replay=Rate.of(agreement.replayed_right[eps]),
            agreement_on_replay=Rate.of(agreement.replayed[eps]),
            per_attack={name: UnderAttack.of(name, eps, evaluation) for name in evaluation.attacks},
            router=AttackedLoad(load=load.load, entropy=load.entropy, flips=flips),
        )


def in_255(eps: float) -> float:
    """A radius in [0, 1] in 1/255 of the pixel range, without the noise of floats."""
    return round(eps * 255, 6)
