"""What backends compile is kept whole or counts as absent, and whoever looks at the log learns which."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute.runtime.backends import cache


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.cache_folder("compiled") / cache.key("device", "model")


@pytest.mark.parametrize("content", [b"", b"plan", bytes(range(256)) * 99])
def test_what_was_kept_comes_back(entry: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.read(entry) is None
    cache.write(entry, b"older")
    cache.write(entry, content)
    assert cache.read(entry) == content and list(entry.parent.iterdir()) == [entry]
    assert not caplog.records


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "link", "folder"])
def test_what_is_damaged_is_absent_and_said(entry: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache.write(entry, b"plan")
    data = entry.read_bytes()
    entry.unlink()
    if damage == "cut":
        entry.write_bytes(data[:-1])
    elif damage == "flip":
        entry.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "empty":
        entry.write_bytes(b"")
    elif damage == "link":
        (entry.parent / "elsewhere").write_bytes(data)
        entry.symlink_to(entry.parent / "elsewhere")
    else:
        entry.mkdir()
    assert cache.read(entry) is None
    (record,) = caplog.records
    assert record.name == "hardroute.runtime.backends.cache" and record.levelno == logging.WARNING
    assert str(entry) in record.getMessage()


def test_what_cannot_be_kept_costs_no_answer_and_is_said(entry: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry.mkdir()
    (entry / "in the way").touch()
    cache.write(entry, b"plan")
    (record,) = caplog.records
    assert "cannot be kept" in record.getMessage() and list(entry.parent.iterdir()) == [entry]


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_other_values_are_another_entry(one: list[str], other: list[str]) -> None:
    assert (cache.key(*one) == cache.key(*other)) is (one == other)
