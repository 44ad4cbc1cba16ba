"""Labelled sets: reading, choosing, loading, and manifests that try to lead astray."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute.runtime.clips import ClipContract, decode
from hardroute.runtime.datasets import ClipRow, ClipSet, load_clips, open_set
from hardroute.runtime.errors import DataError
from tests.support.videos import grey_frames, write

CONTRACT = ClipContract(frames=3, height=16, width=16)


def make_set(folder: Path, rows: list[dict[str, str]], columns: str = "file,label,split,group") -> Path:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns.split(","), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def row(file: str, label: str = "a", split: str = "train", group: str = "g") -> dict[str, str]:
    return {"file": file, "label": label, "split": split, "group": group}


def labelled(counts: dict[str, int]) -> ClipSet:
    rows = [
        ClipRow(Path(f"{label}{i}"), f"{label}{i}", label, "train", "")
        for label, count in counts.items()
        for i in range(count)
    ]
    return ClipSet("made", tuple(sorted(counts)), tuple(rows))


def test_a_folder_is_read_and_loaded(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        write(tmp_path / "in" / f"{i}.avi", grey_frames(6)[i:])
    make_set(tmp_path, [row(f"in/{i}.avi", "ba"[i % 2], "train" if i < 3 else "test", "") for i in range(4)])
    clips = open_set(tmp_path)
    assert clips.classes == ("a", "b") and len(clips) == 4
    # A clip without a group is a group of its own.
    assert [r.group for r in clips.rows] == ["in/0.avi", "in/1.avi", "in/2.avi", "in/3.avi"]
    calls: list[tuple[int, int]] = []
    arrays = load_clips(clips.split("train"), CONTRACT, progress=lambda *call: calls.append(call))
    assert arrays.frames.shape == (3, 3, 16, 16, 3) and arrays.frames.dtype == np.uint8
    assert arrays.labels.tolist() == [1, 0, 1] and arrays.labels.dtype == np.int64
    assert arrays.files == ("in/0.avi", "in/1.avi", "in/2.avi") and arrays.classes == ("a", "b")
    assert calls == [(1, 3), (2, 3), (3, 3)]
    third = decode(tmp_path / "in" / "2.avi", CONTRACT)
    assert np.array_equal(arrays.frames[2], third.frames) and arrays.sha256[2] == third.sha256


@pytest.mark.parametrize(
    "file",
    [
        "../x.avi",
        "a/../../x.avi",
        "/etc/passwd",
        "C:\\x.avi",
        "..\\x.avi",
        "\\\\host\\x.avi",
        "\\x.avi",
        "a\0b.avi",
        "out/x.avi",
    ],
)
def test_a_path_that_leaves_the_set_is_refused(tmp_path: Path, file: str) -> None:
    inside, outside = tmp_path / "set", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    write(outside / "x.avi", grey_frames(3))
    (inside / "out").symlink_to(outside)
    make_set(inside, [row(file)])
    with pytest.raises(DataError, match="line 2") as caught:
        open_set(inside)
    assert "\n" not in str(caught.value)


def test_a_link_within_the_set_is_fine(tmp_path: Path) -> None:
    write(tmp_path / "x.avi", grey_frames(3))
    (tmp_path / "y.avi").symlink_to("x.avi")
    (tmp_path / "circle").symlink_to("circle")
    assert len(load_clips(open_set(make_set(tmp_path, [row("y.avi")])), CONTRACT).frames) == 1
    with pytest.raises(DataError):
        load_clips(open_set(make_set(tmp_path, [row("circle")])), CONTRACT)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no column file, label, split"),
        ("file,split\nx.avi,train\n", "no column label"),
        ("file,label,split\n", "no clips"),
        ("file,label,split\nx.avi,,train\n", "empty label"),
        ("file,label,split\nx.avi\n", "empty label"),
        (",,\n", "no column"),
        ("file,label,split\nx.avi,a,train\nx.avi,b,test\n", "twice"),
        ('file,label,split\n"x.avi,a,train\n', "cannot be read"),
        ("file,label,split\n" + "x" * 200_000 + ",a,train\n", "cannot be read"),
    ],
)
def test_a_manifest_that_labels_nothing_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        open_set(tmp_path)


def test_a_manifest_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_set(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no manifest\.csv"):
        open_set(tmp_path)
    (tmp_path / "manifest.csv").write_bytes(b"file,label,split\n\xff\xfe,a,train\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_set(tmp_path)


def test_an_unknown_split_names_the_ones_there_are(tmp_path: Path) -> None:
    clips = open_set(make_set(tmp_path, [row("x.avi", split="train"), row("y.avi", split="test")]))
    with pytest.raises(DataError, match="test, train"):
        clips.split("val")
    assert len(clips.split("test")) == 1 and clips.split("test").classes == clips.classes


def test_a_broken_clip_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x.avi", grey_frames(3))
    (tmp_path / "y.avi").write_bytes(b"")
    clips = open_set(make_set(tmp_path, [row("x.avi"), row("y.avi")]))
    with pytest.raises(DataError, match=r"y\.avi.*empty"):
        load_clips(clips, CONTRACT)


@given(
    counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1),
    n=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_take_is_balanced_nested_and_repeatable(counts: dict[str, int], n: int, seed: int) -> None:
    clips = labelled(counts)
    taken = clips.take(n, seed)
    assert len(taken) == min(n, len(clips)) and taken.classes == clips.classes
    assert taken == clips.take(n, seed)
    assert set(taken.rows) <= set(clips.take(n + 1, seed).rows)
    got = Counter(r.label for r in taken.rows)
    # Balanced as far as each class lasts: nobody with clips left is more than one behind the best supplied.
    assert all(max(got.values()) - got[label] <= 1 for label in counts if got[label] < counts[label])
    assert [clips.rows.index(r) for r in taken.rows] == sorted(clips.rows.index(r) for r in taken.rows)


def test_take_depends_on_the_seed_and_refuses_nothing_at_all() -> None:
    clips = labelled({"a": 30, "b": 30})
    assert clips.take(10, 0) != clips.take(10, 1)
    with pytest.raises(DataError):
        clips.take(0, 0)


def test_a_real_set_is_read_as_it_says(shared_data: Path) -> None:
    words = open_set(shared_data / "miracl_vc1_words")
    assert len(words.classes) == 10
    assert [len(words.split(name)) for name in ("train", "val", "test")] == [1000, 200, 300]
    groups = [{r.group for r in words.split(name).rows} for name in ("train", "val", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15
    arrays = load_clips(words.split("test").take(20, seed=0), CONTRACT)
    assert np.bincount(arrays.labels, minlength=10).tolist() == [2] * 10


def test_a_manifest_that_nobody_writes_into_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.csv")
    with pytest.raises(DataError, match="not a regular file"):
        open_set(tmp_path)
