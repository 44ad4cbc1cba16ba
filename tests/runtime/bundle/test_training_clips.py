"""A bundle's training clips: found again under another name or in another container, and read without trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardroute import Bundle
from hardroute.runtime.bundle import TRAINING_CLIPS, TrainingClips
from hardroute.runtime.errors import BundleError
from tests.support.audit_bundles import reseal
from tests.support.bundles import make_bundle

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def test_what_was_written_is_read() -> None:
    clips = TrainingClips.parse(TrainingClips.to_bytes([(B, C), (A, C), (B, C)]))
    assert (clips.files, clips.frames) == ({A, B}, {C})
    assert TrainingClips.to_bytes([(B, C), (A, C)]) == f"{A} {C}\n{B} {C}\n".encode()


@pytest.mark.parametrize(("file", "frames", "seen"), [(A, D, [0]), (D, B, [0]), (D, D, [])])
def test_a_clip_is_known_by_its_bytes_or_its_frames(file: str, frames: str, seen: list[int]) -> None:
    assert TrainingClips.parse(TrainingClips.to_bytes([(A, B)])).seen([file, D], [frames, D]) == seen


@pytest.mark.parametrize("data", [b"x", f"{A} {B}".encode(), f"{A}\n".encode(), f"{A} {B} {C}\n".encode(), b"\n"])
def test_anything_but_its_lines_is_refused(data: bytes, tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "bundle").root
    assert Bundle.open(root).training_clips() is None
    (root / TRAINING_CLIPS).write_bytes(data)
    reseal(root, training_clips=TRAINING_CLIPS)
    with pytest.raises(BundleError, match=r"bundle .*training-clips line 1: not two digests"):
        Bundle.open(root).training_clips()


def test_a_list_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "bundle").root
    with pytest.raises(BundleError, match="no digest for training-clips"):
        reseal(root, training_clips=TRAINING_CLIPS)
