"""A set is decoded once, and never wrongly."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hardroute.runtime.clips import ClipContract, DecodedClip, Limits, decode, decode_clips
from hardroute.runtime.datasets import decode_cache as module
from hardroute.runtime.datasets.decode_cache import ClipCache
from hardroute.runtime.errors import ClipError, DataError
from tests.support.videos import write

CONTRACT = ClipContract(frames=4, height=16, width=16)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return made(tmp_path / "a.avi", seed=0)


def made(path: Path, seed: int) -> Path:
    return write(path, np.random.default_rng(seed).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8))


@pytest.fixture
def cache(tmp_path: Path) -> ClipCache:
    return ClipCache(tmp_path / "cache")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that were really decoded."""
    names: list[str] = []

    def counting(path: Path, contract: ClipContract, limits: Limits, *, clips: int) -> tuple[DecodedClip, ...]:
        names.append(path.name)
        return decode_clips(path, contract, limits, clips=clips)

    monkeypatch.setattr(module, "decode_clips", counting)
    return names


def kept(cache: ClipCache) -> list[Path]:
    return [path for path in cache.root.rglob("*") if path.is_file()]


def same(one: DecodedClip, other: DecodedClip) -> bool:
    rest = [{k: v for k, v in vars(clip).items() if k != "frames"} for clip in (one, other)]
    return np.array_equal(one.frames, other.frames) and rest[0] == rest[1]


def test_the_second_time_nothing_is_decoded_and_all_is_equal(cache: ClipCache, video: Path, decoded: list[str]) -> None:
    plain = decode(video, CONTRACT)
    assert same(cache.decode(video, CONTRACT), plain)
    assert same(cache.decode(video, CONTRACT), plain)
    assert decoded == ["a.avi"]


def test_a_copy_is_known_by_its_bytes_and_keeps_its_own_name(cache: ClipCache, video: Path, decoded: list[str]) -> None:
    cache.decode(video, CONTRACT)
    copy = shutil.copy(video, video.with_name("b.avi"))
    assert cache.decode(copy, CONTRACT).name == "b.avi"
    assert decoded == ["a.avi"]


def test_another_content_under_the_same_name_is_another_clip(cache: ClipCache, video: Path, decoded: list[str]) -> None:
    before = cache.decode(video, CONTRACT)
    times = video.stat().st_atime_ns, video.stat().st_mtime_ns
    made(video, seed=1)
    os.utime(video, ns=times)
    after = cache.decode(video, CONTRACT)
    assert not np.array_equal(before.frames, after.frames)
    assert same(after, decode(video, CONTRACT))
    assert len(decoded) == 2


@pytest.mark.parametrize("change", ["contract", "decoder", "library"])
def test_whatever_decides_a_clip_is_part_of_its_key(
    cache: ClipCache, video: Path, decoded: list[str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.decode(video, CONTRACT)
    contract = CONTRACT.model_copy(update={"resize": "stretch"}) if change == "contract" else CONTRACT
    if change == "decoder":
        monkeypatch.setattr(module, "_code", lambda: "another")
    if change == "library":
        monkeypatch.setattr(module.cv2, "__version__", "0")
    cache.decode(video, contract)
    assert len(decoded) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_clip_is_decoded_anew(
    cache: ClipCache, video: Path, decoded: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = cache.decode(video, CONTRACT)
    (place,) = kept(cache)
    data = bytearray(place.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    if damage == "flip":
        data[len(data) // 2] ^= 1
    if damage == "empty":
        data = bytearray()
    if damage == "text":
        data = bytearray(b"not a clip")
    place.write_bytes(data)
    assert not caplog.records
    assert same(cache.decode(video, CONTRACT), plain)
    assert len(decoded) == 2
    assert [record.name for record in caplog.records] == ["hardroute.runtime.datasets.decode_cache"]
    assert str(place) in caplog.text
    assert same(cache.decode(video, CONTRACT), plain)
    assert len(decoded) == 2, "and kept again"


def test_a_kill_while_writing_leaves_nothing_that_would_be_read(
    cache: ClipCache, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.np.lib.format, "write_array", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.decode(video, CONTRACT)
    assert kept(cache) == []


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path, video: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="HARDROUTE_CACHE"):
        ClipCache(tmp_path / "file").decode(video, CONTRACT)


def test_a_broken_video_is_refused_as_ever_and_not_kept(cache: ClipCache, tmp_path: Path) -> None:
    (tmp_path / "x.avi").write_bytes(b"RIFF")
    with pytest.raises(ClipError):
        cache.decode(tmp_path / "x.avi", CONTRACT)
    assert not cache.root.exists()
