"""The page of a report: self-contained, complete, and honest about what it shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.report.figures import Rate
from hardroute.audit.report.html import interval, percent
from hardroute.audit.report.plots import accuracy_curve, amplified, load_bars, strip


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def visible_text(page: Path) -> str:
    parser = _Text()
    parser.feed(page.read_text(encoding="utf-8"))
    return " ".join(" ".join(parser.text).split())


def test_charts_are_svg_that_reaches_for_nothing() -> None:
    points = [(eps, Rate.of(Proportion(30, 60))) for eps in (0, 4, 8)]
    for svg in (
        accuracy_curve(points, {"pgd": points, "<fgsm>": points}, (8, 0.4)),
        load_bars([0.25, 0.75], [1.0, 0.0], 8),
    ):
        assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
        assert not re.search(r"(href|src)=\"(?!#)", svg) and "<fgsm>" not in svg
    assert accuracy_curve(points, {}, None) == accuracy_curve(points, {}, None)


def test_frames_become_png() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), np.uint8)
    assert strip(frames).startswith("data:image/png;base64,iVBOR")


def test_the_change_is_shown_in_full_scale_around_grey() -> None:
    before = np.full((1, 2, 2, 3), 100, np.uint8)
    after = before.copy()
    after[0, 0, 0], after[0, 1, 1] = 108, 92
    change = amplified(before, after)
    assert change[0, 0, 1].tolist() == [127] * 3
    assert change[0, 0, 0, 0] > 240 and change[0, 1, 1, 0] < 15
    assert (amplified(before, before) == 127).all()


def test_shares_read_as_percent() -> None:
    assert percent(0.1234) == "12.3 %" and percent(None) == "–"
    assert interval(Rate.of(Proportion(45, 60))) == "75.0 % (62.8–84.2)"
    assert interval(Rate.of(Proportion(0, 0))) == "–"


@pytest.mark.parametrize("height", [8, 48, 112])
def test_small_frames_are_enlarged_to_be_seen(height: int) -> None:
    import base64

    import cv2

    png = base64.b64decode(strip(np.zeros((2, height, height, 3), np.uint8)).split(",")[1])
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and 72 <= picture.shape[0] <= 144 and picture.shape[1] == 2 * picture.shape[0] + 4
