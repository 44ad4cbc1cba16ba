"""The answer for a whole video: several of its clips, each routed by itself, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardroute.runtime.prediction import Prediction
from hardroute.runtime.routelog import RouteRecord


@dataclass(frozen=True, eq=False)
class VideoPrediction:
    """The answer for a video from C clips.

    Attributes:
        label: the class that is most probable on the mean.
        index: its place in the bundle's classes.
        probability: of that class, in [0, 1].
        probabilities: (K,) float32, the mean of the clips' softmax. Not of their logits: those come from different
            experts, and nothing in training gave these a common scale, so the loudest one would decide.
        clips: the answer for each clip, in order of time.
        windows: where each clip begins and ends, in seconds.
    """

    label: str
    index: int
    probability: float
    probabilities: np.ndarray
    clips: tuple[Prediction, ...]
    windows: tuple[tuple[float, float], ...]

    @classmethod
    def mean(
        cls, classes: Sequence[str], clips: Sequence[Prediction], windows: Sequence[tuple[float, float]]
    ) -> VideoPrediction:
        """Of at least one clip, under the K labels `classes`."""
        mean = np.stack([clip.probabilities for clip in clips]).mean(axis=0, dtype=np.float64).astype(np.float32)
        index = int(mean.argmax())
        return cls(classes[index], index, float(mean[index]), mean, tuple(clips), tuple(windows))

    def records(self, bundle_digest: str) -> list[RouteRecord]:
        """A line of the routing log for each clip, for each was routed; the video's answer stands beside the clip's."""
        return [
            RouteRecord.from_prediction(
                clip,
                bundle_digest,
                window={"index": index, "start": start, "end": end},
                video={"label": self.label, "probability": self.probability, "clips": len(self.clips)},
            )
            for index, (clip, (start, end)) in enumerate(zip(self.clips, self.windows, strict=True))
        ]
