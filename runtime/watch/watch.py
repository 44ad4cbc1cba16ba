"""The watch: compares what the engine answers with what was certified, and says so when they differ."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.errors import BundleError, HardrouteError
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.watch.recent import MAJORITY, Recent
from hardroute.runtime.watch.sequential_tests import COLLAPSE, KINDS, LOAD, LOW_MARGIN, Detector, Evidence
from hardroute.runtime.watch.settings import WatchSettings

if TYPE_CHECKING:
    from hardroute.runtime.bundle.bundle import Bundle  # which reads certificates, and with them baselines

MAX_SOURCES: Final = 4096
_DEFAULT: Final = WatchSettings()
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alarm:
    """The traffic no longer looks like what was certified.

    Attributes:
        kind: "load", "collapse", "low-margin" or "unknown".
        text: one line: what was seen lately, and what was certified.
        window: how many windows had been compared since the start (or the last reset) when it was raised.
        expert: of "load" and "collapse": the one whose share changed; otherwise None.
    """

    kind: str
    text: str
    window: int
    expert: int | None = None


class Watch:
    """Sequential tests of routes, margins and logits against a baseline. Threads may share one.

    While windows and certified clips are exchangeable, the chance of any alarm within N compared windows
    is at most `N * false_alarm`, for every N; docs/watch.md says what that asks for. An alarm stands, and is
    not raised again, until `acknowledge` or `reset`.

    Args:
        baseline: what counts as normal.
        false_alarm: per compared window; 1e-6: one false alarm in a million windows or fewer.
        on_alarm: called with each new alarm, in the thread that observed it. If it raises, that is counted, logged
            by `logging`, and goes no further: a broken pager must not stop the service.
        every: compare one of so many windows of each source. Windows that overlap, or follow each other in a
            scene, are alike: thin them until they are not.
        refresh: windows are compared with the certified clips and with all windows before them; after so many,
            those are dropped. Bounds memory, and keeps what crept in slowly from becoming the norm.
        seed: of the draws that break ties. None: from the system, so that nobody can prepare for them.

    >>> watch = Watch.from_bundle(Bundle.open("models/zoo/motion"), on_alarm=print)  # doctest: +SKIP
    >>> watch.observe(engine.predict("clip.mp4"))  # doctest: +SKIP
    ()
    """

    def __init__(
        self,
        baseline: Baseline,
        *,
        false_alarm: float = _DEFAULT.false_alarm,
        on_alarm: Callable[[Alarm], object] | None = None,
        every: int = _DEFAULT.every,
        refresh: int = _DEFAULT.refresh,
        seed: int | None = None,
    ) -> None:
        settings = WatchSettings(false_alarm=false_alarm, every=every, refresh=refresh, seed=seed)
        self.baseline = baseline
        self.threshold = math.log(len(KINDS) / settings.false_alarm)
        self._on_alarm, self._refresh = on_alarm, settings.refresh
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._thinning = _Thinning(settings.every)
        self._observed = self._raised = self._acknowledged = self._callback_errors = 0
        self._start()

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        false_alarm: float = _DEFAULT.false_alarm,
        on_alarm: Callable[[Alarm], object] | None = None,
        every: int = _DEFAULT.every,
        refresh: int = _DEFAULT.refresh,
        seed: int | None = None,
    ) -> Watch:
        """A watch on the baseline in the bundle's certificate.

        Raises:
            BundleError: the bundle has no certificate, or one that is not valid for it.
        """
        certificate = bundle.certificate()
        if certificate is None:
            raise BundleError(
                f"bundle {bundle.root}: no certificate.json in it to compare traffic with; "
                "audit it, and attach the certificate"
            )
        return cls(
            certificate.baseline,
            false_alarm=false_alarm,
            on_alarm=on_alarm,
            every=every,
            refresh=refresh,
            seed=seed,
        )

    def observe(self, prediction: Prediction, source: str = "") -> tuple[Alarm, ...]:
        """Takes the next window of a source and gives the alarms that are new with it.

        Args:
            prediction: of the bundle that the baseline belongs to.
            source: whose window it is; counts only for `every`.
        """
        with self._lock:
            self._observed += 1
            if not self._thinning.due(source):
                return ()
            raised = self._compare(prediction)
        for alarm in raised:
            self._tell(alarm)
        return raised

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Those that stand, oldest first."""
        with self._lock:
            return tuple(self._standing.values())

    def acknowledge(self, kind: str) -> Alarm | None:
        """Lets one alarm go that somebody has seen to: its test begins anew, and may raise it again. Others go on.

        Returns:
            The alarm, or None: there was none of that kind.

        Raises:
            HardrouteError: there are no alarms of that kind.
        """
        if kind not in KINDS:
            raise HardrouteError(f"there is no alarm {kind[:40]!r}; it is one of {', '.join(KINDS)}")
        with self._lock:
            alarm = self._standing.pop(kind, None)
            if alarm is not None:
                self._detector.restart(kind)
                self._acknowledged += 1
            return alarm

    def reset(self) -> None:
        """Lets all alarms go and begins anew with the certified clips, as if no window had come."""
        with self._lock:
            self._start()

    def metrics(self) -> dict[str, float]:
        """What docs/watch.md lists, by names that suit Prometheus. Those in `_total` only ever grow."""
        with self._lock:
            found: dict[str, float] = {
                "observed_total": self._observed,
                "alarms_total": self._raised,
                "acknowledged_total": self._acknowledged,
                "callback_errors_total": self._callback_errors,
                "compared": self._compared,
                "threshold": self.threshold,
                "low_margin_share": self._recent.low_margin_share,
                "odd_share": self._recent.odd_share,
                "label_distance": self._recent.label_distance,
            }
            for kind in KINDS:
                name = kind.replace("-", "_")
                found[f"alarm_{name}"] = float(kind in self._standing)
                found[f"evidence_{name}"] = self._detector.evidence[kind].log
            for expert, (now, certified) in enumerate(zip(self._recent.load, self._recent.certified, strict=True)):
                found[f"load_expert_{expert}"] = float(now)
                found[f"certified_load_expert_{expert}"] = float(certified)
            return found

    def _start(self) -> None:
        self._standing: dict[str, Alarm] = {}
        self._compared = 0
        self._recent = Recent(self.baseline)
        self._detector = Detector(self.baseline, self._rng)

    def _compare(self, prediction: Prediction) -> tuple[Alarm, ...]:
        if self._detector.windows == self._refresh:
            self._detector = Detector(self.baseline, self._rng)
        self._detector.add(prediction)
        self._recent.add(prediction)
        self._compared += 1
        new = []
        for kind, evidence in self._detector.evidence.items():
            # A rare expert chosen some times in a row is a change, but no collapse: `load` will say so.
            premature = kind == COLLAPSE and self._recent.load[evidence.stream] < MAJORITY
            if evidence.log >= self.threshold and kind not in self._standing and not premature:
                new.append(self._alarm(kind, evidence))
        self._standing |= {alarm.kind: alarm for alarm in new}
        self._raised += len(new)
        return tuple(new)

    def _alarm(self, kind: str, evidence: Evidence) -> Alarm:
        if kind in (COLLAPSE, LOAD):
            return Alarm(kind, self._recent.describe(evidence.stream), self._compared, evidence.stream)
        rank, large = evidence.strongest
        if kind == LOW_MARGIN:
            tail = self._recent.margins
        else:
            tail = self._recent.sure if large else self._recent.unsure
        return Alarm(kind, tail.describe(rank), self._compared)

    def _tell(self, alarm: Alarm) -> None:
        if self._on_alarm is None:
            return
        try:
            self._on_alarm(alarm)
        except Exception:  # whatever it is, the clip was answered
            _logger.exception("on_alarm failed on the alarm %s", alarm.kind)
            with self._lock:
                self._callback_errors += 1


class _Thinning:
    """Says of each window whether its turn has come: of each source the first one, and then one in `every`.

    Remembers the `MAX_SOURCES` that came last; one that was forgotten begins anew.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._turns: OrderedDict[str, int] = OrderedDict()

    def due(self, source: str) -> bool:
        """Takes the source's next window."""
        if self._every == 1:
            return True
        turn = self._turns.pop(source, 0)
        self._turns[source] = (turn + 1) % self._every
        if len(self._turns) > MAX_SOURCES:
            self._turns.popitem(last=False)
        return turn == 0
