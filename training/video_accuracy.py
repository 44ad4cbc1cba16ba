"""How often a bundle is right about whole videos: by the mean over several clips of each, and by the first alone."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from hardroute.audit.clip_selection import require_same_classes
from hardroute.audit.evaluation import Proportion, load_of
from hardroute.runtime.clips import Spread
from hardroute.runtime.datasets import ClipSet
from hardroute.runtime.errors import ClipError, DataError
from hardroute.runtime.inference import Engine


class VideoAccuracy(TypedDict):
    """Of whole videos.

    Attributes:
        clips: of each video. videos: right by the mean over them.
        first: right by the first clip of each, which is the one that an audit attacks and certifies.
        load: share of all clips that each expert answered.
    """

    clips: int
    videos: Proportion
    first: Proportion
    load: list[float]


def evaluate_videos(
    engine: Engine, clip_set: ClipSet, clips: int, progress: Callable[[int, int], None] | None = None
) -> VideoAccuracy:
    """Accuracies of unattacked videos, decoded and held one at a time.

    Raises:
        DataError: the set has other classes than the bundle, or a video cannot be decoded.
        ClipError: the bundle takes whole videos and several clips are asked for.
    """
    require_same_classes(clip_set, engine.bundle)
    Spread(engine.contract.seconds, clips)
    by_mean, by_first, routes = [], [], []
    for done, row in enumerate(clip_set.rows, start=1):
        try:
            found = engine.predict_video(row.path, clips)
        except ClipError as error:
            raise DataError(f"{clip_set.name}: {error}") from None
        by_mean.append(found.label == row.label)
        by_first.append(found.clips[0].label == row.label)
        routes += [clip.route.expert for clip in found.clips]
        if progress:
            progress(done, len(clip_set))
    return {
        "clips": clips,
        "videos": Proportion.of(np.array(by_mean)),
        "first": Proportion.of(np.array(by_first)),
        "load": load_of(np.array(routes), len(engine.bundle.manifest.experts)).tolist(),
    }
