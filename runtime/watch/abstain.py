"""When the service had better give no answer: a rule on one prediction, without memory."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hardroute.runtime.prediction import Prediction
from hardroute.runtime.settings import Settings


class Abstain(Settings):
    """Withholds an answer where the router hesitated or the answer is improbable.

    What it costs is coverage: `audit` certifies the accuracy of answering always. Choose the thresholds on clips
    that you have labels for; docs/watch.md shows how.

    Raises:
        SettingsError: a threshold outside [0, 1].

    >>> Abstain(margin=0.05)
    Abstain(margin=0.05, probability=0.0)
    """

    what: ClassVar[str] = "abstain"

    margin: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Withhold answers with a smaller router margin."
    )
    probability: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Withhold answers whose label is less probable."
    )

    def __call__(self, prediction: Prediction) -> bool:
        """Whether to abstain."""
        return prediction.route.margin < self.margin or prediction.probability < self.probability
