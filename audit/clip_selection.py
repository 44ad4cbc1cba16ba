"""The clips that a policy asks for, out of a labelled set, in the bundle's terms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hardroute.audit.policy import Policy
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.datasets import ClipArrays, ClipSet
from hardroute.runtime.errors import DataError


def chosen_clips(clip_set: ClipSet, bundle: Bundle, policy: Policy, limit: int | None) -> ClipSet:
    """The clips that the policy names. Raises DataError unless set and bundle have the same classes."""
    require_same_classes(clip_set, bundle)
    count = min(policy.data.clips, limit or policy.data.clips)
    return clip_set.split(policy.data.split).take(count, policy.data.seed)


def require_same_classes(clip_set: ClipSet, bundle: Bundle) -> None:
    """Raises DataError, naming those that only one of them has, unless set and bundle have the same classes."""
    here, there = set(clip_set.classes), set(bundle.manifest.classes)
    if here != there:
        only = [
            f"only in the {side}: {', '.join(sorted(names)[:5])}"
            for side, names in (("set", here - there), ("bundle", there - here))
            if names
        ]
        raise DataError(f"{clip_set.name}: its classes are not those of the bundle ({'; '.join(only)})")


def ordered(clips: ClipArrays, bundle: Bundle) -> ClipArrays:
    """The same clips with labels that count in the bundle's order of classes."""
    classes = bundle.manifest.classes
    place = np.array([classes.index(name) for name in clips.classes])
    return replace(clips, labels=place[clips.labels], classes=classes)
