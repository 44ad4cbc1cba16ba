"""`log summary`: figures that numpy gives as well, from any file, in bounded memory."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hardroute import HardrouteError, RouteLog
from hardroute.runtime.cli.log import app
from hardroute.runtime.cli.log_text import as_dict, describe_summary
from hardroute.runtime.routelog import EventRecord
from hardroute.runtime.routelog.summary import drift, summarise
from tests.support.bundles import certify, make_bundle
from tests.support.routelogs import record, write

START = datetime(2026, 11, 3, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A log of three hours, its margins, and its experts; in the third hour only expert 2 answers."""
    path = tmp_path_factory.mktemp("traffic") / "log"
    rng = np.random.default_rng(0)
    margins, experts = rng.random(900), np.append(rng.integers(0, 3, 600), np.full(300, 2))
    with RouteLog(path, max_bytes=100_000) as log:
        for n, (margin, expert) in enumerate(zip(margins.tolist(), experts.tolist(), strict=True)):
            time = (START + timedelta(seconds=12 * n)).isoformat(timespec="microseconds")
            label = "left" if n % 3 else "right"
            log.append(
                record(time=time, margin=margin, expert=expert, weights=[0.4, 0.3, 0.2, 0.1], label=label,
                       abstained=n < 5, alarms=["load"] if n == 700 else None)
            )  # fmt: skip
        log.append(EventRecord.now("clip", error="bad.mp4: no video"))
    return path, margins, experts


def test_the_figures_are_those_of_numpy(traffic: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, margins, experts = traffic
    found = summarise([path], low_margin=0.25)
    assert (found.files, found.lines, found.clips) == (len(list(path.parent.iterdir())), 901, 900)
    assert (found.experts, found.abstained, found.unreadable) == (4, 5, 0)
    counts = np.bincount(experts, minlength=4)
    assert found.load[:4].tolist() == counts.tolist()
    shares = counts[counts > 0] / 900
    assert found.entropy == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))
    assert found.low_margin == (margins < 0.25).sum()
    for share, value in found.margin_quantiles().items():
        assert value == pytest.approx(np.quantile(margins, share, method="inverted_cdf"), abs=0.001)
    assert found.labels == {"left": 600, "right": 300}
    assert (found.events, found.alarms) == ({"clip": 1}, {"load": 1})
    assert found.first == START


def test_drift_is_seen_by_hour_and_by_file(traffic: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, _, experts = traffic
    first, second, third = as_dict(summarise([path]))["parts"]
    assert [part["part"] for part in (first, second, third)] == [f"2026-11-03 {hour}:00" for hour in (10, 11, 12)]
    assert first["drift"] == 0 and second["drift"] < 3 * second["chance"]
    share = (experts[:300] == 2).mean()
    assert third["drift"] == pytest.approx(1 - share, abs=1e-4) and third["drift"] > 5 * third["chance"]
    by_file = as_dict(summarise([path], part="file"))["parts"]
    assert len(by_file) > 3 and by_file[-1]["drift"] > 0.5
    assert len(summarise([path], part="day").parts) == 1
    # Against a load that was certified, the first part may be the odd one out as well.
    against = as_dict(summarise([path]), certified=[0, 0, 500])
    assert against["drift_against"] == "baseline"
    assert [part["drift"] for part in against["parts"]][2] == 0 and against["parts"][0]["drift"] > 0.5


def test_chance_is_what_simulation_gives() -> None:
    rng, share = np.random.default_rng(1), np.array([0.4, 0.3, 0.2, 0.1])
    reference = (1e9 * share).astype(np.int64)
    drifts = [drift(rng.multinomial(500, share), reference) for _ in range(2000)]
    far, chance = np.mean(drifts, axis=0)
    assert chance == pytest.approx(far, rel=0.05)


def test_lost_and_torn_lines_and_rubbish_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 3)
    good = path.read_bytes()
    path.write_bytes(good + b'{"seq": 4, "prev": "')
    with RouteLog(path) as log:
        with pytest.raises(HardrouteError):
            log.append(record("x" * 70_000))
        log.append(record())
    rubbish = [
        {"time": 5},
        {"time": "2026-11-03"},
        {**json.loads(record().to_json()), "expert": 10**9},
        {**json.loads(record().to_json()), "margin": 1e999},
        {**json.loads(record().to_json()), "weights": 3},
        {**json.loads(record().to_json()), "alarms": "load"},
    ]
    with path.open("ab") as file:
        file.write(b"".join(json.dumps(line).encode() + b"\n" for line in rubbish) + b"[" * 60_000 + b"\n")
    found = summarise([path])
    assert (found.clips, found.lost, found.torn, found.unreadable) == (4, 1, 1, 7)


def test_forged_names_cannot_fill_memory_or_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        for n in range(1500):
            file.write(record(label=f"{n}\x1b[31m", stream="x").to_json() + "\n")
    found = summarise([path])
    assert len(found.labels) == 1001 and found.labels["(others)"] == 500
    text = describe_summary(found)
    assert "\x1b" not in text and len(text) < 3000


def test_too_many_parts_name_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        for hour in range(10_001):
            file.write(record(time=(START + timedelta(hours=hour)).isoformat()).to_json() + "\n")
    with pytest.raises(HardrouteError, match="take each day or file as one"):
        summarise([path])
    assert len(summarise([path], part="day").parts) == 418


def test_the_command_prints_text_and_json(traffic: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, *_ = traffic
    shown = CliRunner().invoke(app, ["summary", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "900 clips" in shown.output and "2026-11-03 12:00" in shown.output and "0%/0%/100%/0%" in shown.output
    shown = CliRunner().invoke(app, ["summary", str(path), "--json", "--by", "file"])
    assert json.loads(shown.output) == as_dict(summarise([path], part="file"))
    wrong = CliRunner().invoke(app, ["summary", str(path), "--by", "week"])
    assert isinstance(wrong.exception, HardrouteError)


def test_the_load_is_compared_with_the_certified_one(
    traffic: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    words = ["summary", str(traffic[0]), "--json", "--baseline", str(tmp_path / "bundle")]
    make_bundle(tmp_path / "bundle")
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, HardrouteError) and "certificate" in str(refused.exception)
    certify(tmp_path / "bundle")
    found = json.loads(CliRunner().invoke(app, words).output)
    certified = json.loads((tmp_path / "bundle/certificate.json").read_text())["baseline"]["experts"]
    assert found == as_dict(summarise([traffic[0]]), certified)
    assert found["drift_against"] == "baseline" and found["parts"][0]["drift"] > 0


def test_an_empty_log_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    assert re.match(r"lines +0 in 1 file; 0 clips\n", describe_summary(summarise([tmp_path / "log"])))
    assert as_dict(summarise([tmp_path / "log"]))["clips_per_second"] is None
