"""When the service had better give no answer: a rule on one prediction, without memory."""

from __future__ import annotations

from dataclasses import dataclass

from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.prediction import Prediction


@dataclass(frozen=True)
class Abstain:
    """Withholds an answer where the router hesitated or the answer is improbable.

    What it costs is coverage: `audit` certifies the accuracy of answering always. Choose the thresholds on clips
    that you have labels for; docs/watch.md shows how.

    Attributes:
        margin: smallest router margin that is answered, in [0, 1]; 0: all are.
        probability: smallest probability of the label that is answered, in [0, 1]; 0: all are.

    Raises:
        HardrouteError: a threshold outside [0, 1].

    >>> Abstain(margin=0.05)
    Abstain(margin=0.05, probability=0.0)
    """

    margin: float = 0.0
    probability: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("margin", self.margin), ("probability", self.probability)):
            if not 0 <= value <= 1:  # also refuses NaN
                raise HardrouteError(f"abstain below {name} {value:g}: it must lie in 0 to 1")

    def __call__(self, prediction: Prediction) -> bool:
        """Whether to abstain."""
        return prediction.route.margin < self.margin or prediction.probability < self.probability
