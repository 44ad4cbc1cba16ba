"""The watch is silent while traffic is as certified, says what changed when it is not, and harms nobody."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hardroute import HardrouteError, Prediction
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.bundle.baseline import MAX_SAMPLE, log_odds
from hardroute.runtime.watch import Abstain, Alarm, Watch
from hardroute.runtime.watch.sequential_tests import Detector, NumberRanks
from hardroute.runtime.watch.watch import MAX_SOURCES
from tests.support.watched import baseline, prediction, traffic


def kinds(watch: Watch, windows: Sequence[Prediction]) -> dict[str, int]:
    """First alarm of each kind, and the window it came with."""
    return {alarm.kind: alarm.window for each in windows for alarm in watch.observe(each)}


def collapsed(count: int, seed: int) -> list[Prediction]:
    return traffic(count, seed, (0.01, 0.01, 0.97, 0.01))


def drifted(count: int, seed: int) -> list[Prediction]:
    return traffic(count, seed, (0.1, 0.2, 0.3, 0.4))


def hesitant(count: int, seed: int) -> list[Prediction]:
    return traffic(count, seed, margin=0.25)


def strange(count: int, seed: int) -> list[Prediction]:
    return traffic(count, seed, log_odds=0.5)


def too_sure(count: int, seed: int) -> list[Prediction]:
    return traffic(count, seed, log_odds=6.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changed, kind, expert, says",
    [
        (collapsed, "collapse", 2, "expert 2 answers"),
        (drifted, "load", None, "answers"),
        (hesitant, "low-margin", None, "a router margin below"),
        (strange, "unknown", None, "log odds of the label below"),
        (too_sure, "unknown", None, "log odds of the label above"),
    ],
)
def test_a_change_raises_its_alarm_and_no_other_kind_of_it(
    changed: Callable[[int, int], list[Prediction]], kind: str, expert: int | None, says: str, seed: int
) -> None:
    heard: list[Alarm] = []
    watch = Watch(baseline(), false_alarm=1e-4, on_alarm=heard.append, seed=seed)
    assert kinds(watch, traffic(300, 10 + seed)) == {}
    found = kinds(watch, changed(200, 20 + seed))
    assert 300 < found[kind] <= 450
    assert set(found) <= {kind, "load"}  # a collapse is a change of load as well
    (alarm,) = (each for each in heard if each.kind == kind)
    assert says in alarm.text and "of the certified clips" in alarm.text
    assert kind == "load" or alarm.expert == expert
    lately, certified = map(int, re.findall(r"(\d+)%", alarm.text))
    assert kind == "load" or lately > 1.2 * certified
    # It stands and is not raised again.
    assert len(heard) == len(found) and alarm in watch.alarms


def test_false_alarms_stay_below_the_stated_rate() -> None:
    """100 runs of 200 windows at 1e-3: at most 20 alarms are allowed on average, all four kinds together.

    Each run draws its baseline anew, as the statement is about that too.
    """
    alarms = 0
    for run in range(100):
        everything = traffic(300, seed=1000 + run)
        alarms += bool(kinds(Watch(Baseline.of(everything[:100]), false_alarm=1e-3, seed=run), everything[100:]))
    assert 0 < alarms <= 20


def test_reset_begins_anew_with_the_certified_clips() -> None:
    watch = Watch(baseline(), seed=0)
    assert "load" in kinds(watch, drifted(300, 1))
    watch.reset()
    assert watch.alarms == () and watch.metrics()["compared"] == 0
    # What was seen before the reset has not become normal.
    assert "load" in kinds(watch, drifted(300, 1)) and watch.metrics()["alarms_total"] == 2


def test_memory_is_bounded_by_the_period() -> None:
    watch = Watch(baseline(count=100), refresh=50, seed=0)
    kinds(watch, traffic(130, 3))
    assert watch.metrics()["compared"] == 130
    ranks = watch._detector._ranks["low-margin"]
    assert isinstance(ranks, NumberRanks) and len(ranks._pool) == 100 + 30


def test_thinning_counts_each_source_on_its_own_and_remembers_a_bounded_number() -> None:
    watch = Watch(baseline(), every=3, seed=0)
    for _ in range(6):
        for source in ("a", "b"):
            watch.observe(prediction(), source)
    assert watch.metrics()["compared"] == 4 and watch.metrics()["observed_total"] == 12
    for n in range(6000):
        watch.observe(prediction(), f"source {n}")
    assert len(watch._thinning._turns) == MAX_SOURCES


def test_a_callback_that_fails_is_counted_and_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(alarm: Alarm) -> None:
        raise OSError("no pager")

    watch = Watch(baseline(), on_alarm=broken, seed=0)
    found = kinds(watch, collapsed(100, 1))
    assert "collapse" in found
    assert watch.metrics()["callback_errors_total"] == len(found) == watch.metrics()["alarms_total"]
    assert "on_alarm failed on the alarm collapse" in caplog.text and "OSError: no pager" in caplog.text


def test_a_callback_may_ask_the_watch() -> None:
    asked: list[float] = []
    watch = Watch(baseline(), on_alarm=lambda alarm: asked.append(watch.metrics()["alarm_collapse"]), seed=0)
    kinds(watch, collapsed(100, 1))
    assert asked and asked[-1] == 1


def test_metrics_say_what_happened() -> None:
    watch = Watch(baseline(), false_alarm=1e-4, seed=0)
    before = watch.metrics()
    assert before["load_expert_0"] == before["certified_load_expert_0"] == pytest.approx(0.4, abs=0.1)
    assert before["low_margin_share"] == before["odd_share"] == 0.1 and before["label_distance"] == 0
    kinds(watch, [prediction(1, 0.0, -5.0, label=2)] * 200)
    after = watch.metrics()
    assert after["load_expert_1"] > 0.9 and after["low_margin_share"] > 0.9 and after["odd_share"] > 0.9
    assert after["label_distance"] == pytest.approx(1 - np.array(watch.baseline.labels)[2] / 200)
    for kind in ("collapse", "load", "low_margin", "unknown"):
        assert after[f"alarm_{kind}"] == 1 and after[f"evidence_{kind}"] >= after["threshold"]
        assert before[f"alarm_{kind}"] == 0 and before[f"evidence_{kind}"] < before["threshold"]
    assert all(isinstance(value, int | float) for value in after.values())


def test_the_same_seed_repeats_and_other_draws_do_not_silence_an_alarm() -> None:
    windows = traffic(50, 1) + hesitant(150, 2)
    first = [kinds(Watch(baseline(), false_alarm=1e-4, seed=seed), windows) for seed in range(5)]
    assert first[0] == kinds(Watch(baseline(), false_alarm=1e-4, seed=0), windows)
    assert all("low-margin" in found for found in first)


def test_threads_share_a_watch_one_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, together = 0, 0
    add = Detector.add

    def slow(self: Detector, window: Prediction) -> None:
        nonlocal inside, together
        inside += 1
        together = max(together, inside)
        add(self, window)
        sum(range(2000))  # time for another thread to come in, if it could
        inside -= 1

    monkeypatch.setattr(Detector, "add", slow)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        heard: list[Alarm] = []
        watch = Watch(baseline(), on_alarm=heard.append, seed=0)
        windows = collapsed(100, 1)
        threads = [threading.Thread(target=lambda: [watch.observe(each) for each in windows]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    found = watch.metrics()
    assert together == 1 and found["compared"] == found["observed_total"] == 400
    # Each kind once, whichever threads saw it.
    assert len({alarm.kind for alarm in heard}) == len(heard) == found["alarms_total"] > 0


@pytest.mark.parametrize(
    "options",
    [{"false_alarm": 0.0}, {"false_alarm": 1.0}, {"false_alarm": float("nan")}, {"every": 0}, {"refresh": 0}],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(HardrouteError, match="watch: "):
        Watch(baseline(), **options)  # type: ignore[arg-type]


def test_one_expert_alone_never_drifts() -> None:
    alone = [prediction(0, 1.0, experts=1)] * 50
    watch = Watch(Baseline.of(alone), false_alarm=0.01, seed=3)
    kinds(watch, alone * 2)
    assert not {"load", "collapse"} & {alarm.kind for alarm in watch.alarms}


def test_log_odds_are_those_of_the_probabilities() -> None:
    for logits in np.random.default_rng(0).normal(0, 3, (20, 5)):
        p = np.exp(logits).max() / np.exp(logits).sum()
        assert log_odds(logits) == pytest.approx(np.log(p / (1 - p)))
        assert log_odds(logits.astype(np.float32)) == log_odds(logits.astype(np.float32).astype(np.float64))
    assert log_odds(np.array([1e4, 0.0], np.float32)) == 1e4
    assert log_odds(np.array([7.0, 7.0], np.float32)) == 0


def test_a_large_baseline_keeps_a_sample_drawn_at_random() -> None:
    answers = [prediction(margin=n / 3000) for n in range(3000)]
    large = Baseline.of(answers)
    assert large.clips == 3000 and len(large.margins) == len(large.log_odds) == MAX_SAMPLE
    drawn = set(large.margins)
    assert drawn <= {each.route.margin for each in answers} and len(drawn) == MAX_SAMPLE
    # Of every stretch about a third, but not exactly: quantiles would be too regular to rank against.
    counts = np.histogram(large.margins, 10, (0, 1))[0]
    assert (np.abs(counts - 100) < 40).all() and counts.std() > 2


def test_abstaining_below_a_margin_or_a_probability() -> None:
    unsure = prediction(margin=0.04, log_odds=2.0)
    assert not Abstain()(prediction(margin=0.0))
    assert Abstain(margin=0.05)(unsure) and not Abstain(margin=0.04)(unsure)
    assert Abstain(probability=0.9)(unsure) and not Abstain(probability=0.85)(unsure)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(HardrouteError, match="abstain: margin must be"):
            Abstain(margin=bad)


@pytest.mark.parametrize(
    "changed, kind", [(collapsed, "collapse"), (drifted, "load"), (hesitant, "low-margin"), (strange, "unknown")]
)
def test_an_alarm_that_is_acknowledged_comes_again_and_only_if_there_is_reason(
    changed: Callable[[int, int], list[Prediction]], kind: str
) -> None:
    watch = Watch(baseline(), seed=0)
    first = kinds(watch, traffic(100, 1) + changed(1500, 2))
    assert kind in first and watch.metrics()["acknowledged_total"] == 0
    others = {alarm.kind for alarm in watch.alarms} - {kind}
    alarm = watch.acknowledge(kind)
    assert alarm is not None and alarm.kind == kind
    assert {alarm.kind for alarm in watch.alarms} == others and watch.acknowledge(kind) is None
    assert watch.metrics()["acknowledged_total"] == 1
    # The change has gone: nothing comes; and then it is there again, as soon as it would be for a new watch.
    assert kind not in kinds(watch, traffic(500, 3))
    again = kinds(watch, changed(1500, 4))
    assert kind in again
    assert watch.metrics()["alarms_total"] == len(first) + len(again)


def test_what_was_not_acknowledged_keeps_its_evidence() -> None:
    one, other = Watch(baseline(), seed=0), Watch(baseline(), seed=0)
    for window in strange(200, 2):
        one.observe(window)
        other.observe(window)
    assert one.acknowledge("unknown")
    for window in strange(50, 3):
        one.observe(window)
        other.observe(window)
    mine, theirs = one.metrics(), other.metrics()
    for kind in ("collapse", "load", "low_margin"):
        assert mine[f"evidence_{kind}"] == theirs[f"evidence_{kind}"]
    assert mine["evidence_unknown"] != theirs["evidence_unknown"]
    with pytest.raises(HardrouteError, match="there is no alarm 'noise'; it is one of collapse, load"):
        one.acknowledge("noise")


def test_an_acknowledged_test_raises_no_more_false_alarms_than_stated() -> None:
    # At a rate of 1 in 200 windows, 40 watches of 50 windows: 10 alarms at most on the mean, of all kinds.
    false = 0
    for seed in range(40):
        watch = Watch(baseline(seed=seed), false_alarm=1 / 200, seed=seed)
        for n, window in enumerate(traffic(50, 1000 + seed)):
            false += len(watch.observe(window))
            if n % 10 == 0:
                for alarm in watch.alarms:
                    watch.acknowledge(alarm.kind)
    assert false <= 20
