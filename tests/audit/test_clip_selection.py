"""Clips count once each, whatever file they come in."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from hardroute.audit.clip_selection import data_digest, distinct, once_each
from hardroute.runtime.datasets import ClipArrays


def clips_of(seeds: list[int], files: list[str]) -> ClipArrays:
    """A clip per seed, in a file of that content."""
    frames = np.stack([np.random.default_rng(seed).integers(0, 256, (2, 3, 3, 3), np.uint8) for seed in seeds])
    names = tuple(f"{n}.avi" for n in range(len(seeds)))
    return ClipArrays(frames, np.arange(len(seeds)) % 2, names, tuple(files), ("a", "b"))


def test_a_set_without_copies_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    clips = clips_of([1, 2, 3], ["x", "y", "z"])
    kept, copies = once_each(clips, "mine")
    assert kept is clips and copies == 0 and not caplog.records


@pytest.mark.parametrize(
    ("seeds", "files", "kept"),
    [
        ([1, 2, 3], ["x", "y", "x"], [0, 1]),  # the same bytes, were they decoded otherwise
        ([1, 2, 1], ["x", "y", "z"], [0, 1]),  # the same frames in another file
        ([1, 1, 1], ["x", "x", "x"], [0]),
        ([1, 2, 2, 3], ["x", "y", "x", "y"], [0, 1]),  # a copy of a copy by way of the other digest
    ],
)
def test_copies_count_once_and_that_is_said(
    seeds: list[int], files: list[str], kept: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    clips = clips_of(seeds, files)
    assert distinct(clips).tolist() == kept
    with caplog.at_level(logging.WARNING, logger="hardroute"):
        left, copies = once_each(clips, "mine")
    assert copies == len(seeds) - len(kept)
    assert [record.getMessage() for record in caplog.records] == [
        f"mine: {copies} of {len(seeds)} clips are copies of others; each clip counts once"
    ]
    assert np.array_equal(left.frames, clips.frames[kept]) and np.array_equal(left.labels, clips.labels[kept])
    assert left.files == tuple(clips.files[n] for n in kept) and left.sha256 == tuple(files[n] for n in kept)
    assert once_each(left, "mine") == (left, 0)


def test_the_digest_is_of_contents_labels_and_order() -> None:
    clips = clips_of([1, 2], ["x", "y"])
    others = [
        clips_of([1, 2], ["x", "z"]),
        clips_of([1, 2], ["y", "x"]),
        ClipArrays(clips.frames, clips.labels[::-1], clips.files, clips.sha256, clips.classes),
    ]
    assert len({data_digest(each) for each in [clips, *others]}) == 4
    assert data_digest(clips) == data_digest(
        ClipArrays(clips.frames, clips.labels, ("c", "d"), clips.sha256, clips.classes)
    )
