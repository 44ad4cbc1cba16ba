"""The fuzz program itself: what it damages, and that it notices a decoder that dies."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from hardroute.runtime.clips.scan import Reader
from hardroute.runtime.errors import ClipError
from tests.measure import fuzz_video


def test_a_few_files_of_every_pair() -> None:
    done = CliRunner().invoke(fuzz_video.app, ["--count", "90", "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert "90 files of 30 pairs, seed 3" in done.output and "hangs 0" in done.output
    assert "frames" in done.output and "refused" in done.output


def test_the_same_seed_damages_alike_and_keeps_the_first_bytes() -> None:
    data = bytes(range(256)) * 20
    one, other = (fuzz_video.mutated(data, data, np.random.default_rng(5)) for _ in range(2))
    assert one == other != data and one[:4] == data[:4]


def test_a_decoder_that_dies_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> Reader:
        raise ClipError("x: it ended its decoder (SIGSEGV): damaged")

    monkeypatch.setattr(fuzz_video, "decode", dies)
    done = CliRunner().invoke(fuzz_video.app, ["--count", "3"])
    assert "decoder ended by SIGSEGV" in done.output
