"""The clips that a policy asks for, out of a labelled set, in the bundle's terms."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import numpy as np

from hardroute.audit.policy import Policy
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.datasets import ClipArrays, ClipSet
from hardroute.runtime.errors import DataError

log = logging.getLogger(__name__)


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


def distinct(clips: ClipArrays) -> np.ndarray:
    """(n,) indices of the clips that are no copies of an earlier one, neither the file's bytes nor the frames."""
    files, frames, kept = set[str](), set[str](), []
    for n, (file, shown) in enumerate(zip(clips.sha256, clips.frames_sha256, strict=True)):
        if file not in files and shown not in frames:
            kept.append(n)
        files.add(file)
        frames.add(shown)
    return np.array(kept, np.int64)


def once_each(clips: ClipArrays, name: str) -> tuple[ClipArrays, int]:
    """The clips without copies of others, and how many copies there were, which is said in the log.

    Args:
        name: what the set is called.
    """
    kept = distinct(clips)
    copies = len(clips.labels) - len(kept)
    if not copies:
        return clips, 0
    log.warning("%s: %d of %d clips are copies of others; each clip counts once", name, copies, len(clips.labels))
    return (
        replace(
            clips,
            frames=clips.frames[kept],
            labels=clips.labels[kept],
            files=tuple(clips.files[n] for n in kept),
            sha256=tuple(clips.sha256[n] for n in kept),
        ),
        copies,
    )


def require_unseen(clips: ClipArrays, bundle: Bundle, name: str) -> None:
    """Raises DataError for clips that the bundle was trained on, naming the first; `name`: what the set is called."""
    trained = bundle.training_clips()
    if trained is None:
        log.info("bundle %s does not say what it was trained on", bundle.root)
        return
    if seen := trained.seen(clips.sha256, clips.frames_sha256):
        files = ", ".join(clips.files[place] for place in seen[:3])
        raise DataError(
            f"{name}: bundle {bundle.root} was trained on {len(seen)} of these {len(clips.labels)} clips ({files}"
            f"{', ...' if len(seen) > 3 else ''}), and nothing can be certified on them; take others"
        )


def data_digest(clips: ClipArrays) -> str:
    """SHA-256 over a line "<digest of the file's bytes> <class>" per clip, in the report's order."""
    lines = [f"{sha256} {clips.classes[label]}\n" for sha256, label in zip(clips.sha256, clips.labels, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
