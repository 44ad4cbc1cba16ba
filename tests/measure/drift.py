"""`python -m tests.measure.drift BUNDLE`: is the watch quiet on clean traffic, and soon loud otherwise?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer

from hardroute import Bundle, Engine, Prediction, Stream
from hardroute.audit.attacks import ATTACKS
from hardroute.audit.cli import ordered
from hardroute.models import load_twin
from hardroute.runtime.backends import Session, open_backend
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.cli import main
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays, load_clips, open_set
from hardroute.runtime.watch import Alarm, Watch

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
RATES: Final = (1e-6, 1e-4)
SHARES: Final = (1.0, 0.5, 0.2)
RUNS: Final = 20
LEADS: Final = (0, 1000)
PATIENCE: Final = 1000


class Collapsed:
    """A backend whose router has grown a bias that nothing else outweighs."""

    def __init__(self, router: str) -> None:
        self._backend, self._router = open_backend("cpu"), router

    def load(self, model: bytes, name: str) -> Session:
        session = self._backend.load(model, name)
        return Biased(session) if name == self._router else session


class Biased:
    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, clips: np.ndarray) -> np.ndarray:
        logits = self._session.run(clips).copy()
        logits[:, 0] += 100
        return logits


@app.command()
def drift(
    bundle: Annotated[Path, typer.Argument(help="a bundle trained on motion, with its twin")],
    clean: Annotated[int, typer.Option(help="clean windows, from a seed that no split was made of")] = 2400,
    attacked: Annotated[int, typer.Option(help="clips to attack; they are shown again and again")] = 64,
    attack: Annotated[list[str] | None, typer.Option(help="attacks at 8/255 and 20 steps")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder with other videos, to be unknown inputs")] = None,
) -> None:
    """False alarms and windows until alarm, over many random orders of the same windows."""
    opened = Bundle.open(bundle)
    with Engine.load(opened) as engine:
        certificate = opened.certificate()
        if certificate:
            baseline = certificate.baseline
        else:
            baseline = Baseline.of(answers(engine, clips_of("motion", opened).frames))
        origin = "its certificate" if certificate else "the test split of motion, measured here"
        print(f"baseline: {baseline.clips} clips, from {origin}; load {list(baseline.experts)}")
        fresh = clips_of(f"motion:seed=7,train=0,val=0,test={-(-clean // 8)}", opened)
        usual = answers(engine, fresh.frames)
        false_alarms(baseline, usual)
        print(f"\nwindows until an alarm, median of {RUNS} orders (orders that had one within {PATIENCE} windows)")
        print(f"{'traffic':30}{'share':>6}{'clean before':>14}" + "".join(f"{f'at {rate:g}':>16}" for rate in RATES))
        some = np.random.default_rng(0).permutation(len(usual))[:attacked]
        for name in attack or ["tlga-r"]:
            clips = adversarial(bundle, fresh, some, name)
            until(baseline, usual, answers(engine, clips), f"{name} at 8/255", SHARES)
        until(baseline, usual, answers(engine, noise(fresh)), "noise", SHARES)
        if videos:
            found = [each for path in sorted(videos.rglob("*")) if path.is_file() for each in streamed(engine, path)]
            until(baseline, usual, found, f"{len(found)} windows of other videos", SHARES)
    with Engine.load(opened, Collapsed(opened.manifest.router), verify=False) as collapsed:
        until(baseline, usual, answers(collapsed, fresh.frames[some]), "collapsed router", (1.0,))


def clips_of(spec: str, bundle: Bundle) -> ClipArrays:
    return ordered(load_clips(open_set(spec).split("test"), bundle.manifest.contract), bundle)


def answers(engine: Engine, frames: np.ndarray) -> list[Prediction]:
    return [each for start in range(0, len(frames), 32) for each in engine.predict_batch(frames[start : start + 32])]


def streamed(engine: Engine, video: Path) -> list[Prediction]:
    """As a camera would show it: windows of one second, one after the other."""
    with Stream(engine, video, seconds=1.0) as events:
        return [event.prediction for event in events if event.prediction]


def noise(clips: ClipArrays) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, *clips.frames.shape[1:]), np.uint8)


def adversarial(bundle: Path, clips: ClipArrays, some: np.ndarray, name: str) -> np.ndarray:
    """8-bit frames that the attack makes of some clips, on the twin; labels are the clips' own."""
    x, y = torch.from_numpy(to_network(clips.frames[some])), torch.from_numpy(clips.labels[some])
    found = ATTACKS[name](load_twin(bundle), x, y, eps=8 / 255, steps=20, seed=0)
    return (found * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy()


def false_alarms(baseline: Baseline, usual: Sequence[Prediction]) -> None:
    """What the watch says of clean windows: as they came, and in many other orders."""
    print(f"\nfalse alarms over {len(usual)} clean windows")
    for rate in (*RATES, 1e-3):
        orders = [usual, *(shuffled(usual, run) for run in range(RUNS))]
        watches = [Watch(baseline, false_alarm=rate, seed=run) for run in range(len(orders))]
        alarms = [first(*each) for each in zip(watches, orders, strict=True)]
        print(
            f"  at {rate:g} a window: {int(alarms[0] is not None)}; in {RUNS} other orders "
            f"{sum(map(bool, alarms[1:]))}; allowed per order: {rate * len(usual):.2g} on average",
            flush=True,
        )


def until(
    baseline: Baseline, usual: Sequence[Prediction], other: Sequence[Prediction], what: str, shares: Iterable[float]
) -> None:
    """Prints how many windows a change takes to be noticed, and by which alarms."""
    for share, lead in itertools.product(shares, LEADS):
        cells, kinds = [], set()
        for rate in RATES:
            watches = [Watch(baseline, false_alarm=rate, seed=run) for run in range(RUNS)]
            orders = (mixed(usual, other, share, lead, run) for run in range(RUNS))
            alarms = [first(*each) for each in zip(watches, orders, strict=True)]
            # An alarm before the change is a false one, and the change counts as missed.
            delays = [alarm.window - lead for alarm in alarms if alarm and alarm.window > lead]
            kinds |= {alarm.kind for alarm in alarms if alarm}
            median = sorted(delays + [PATIENCE + 1] * (RUNS - len(delays)))[RUNS // 2]
            cells.append(f"{median if median <= PATIENCE else '-'} ({len(delays)}/{RUNS})")
        row = f"{what:30}{share:>6.0%}{lead:>14}" + "".join(f"{cell:>16}" for cell in cells)
        print(f"{row}  {', '.join(sorted(kinds))}", flush=True)


def first(watch: Watch, windows: Iterable[Prediction]) -> Alarm | None:
    return next((alarm for window in windows for alarm in watch.observe(window)), None)


def mixed(
    usual: Sequence[Prediction], other: Sequence[Prediction], share: float, lead: int, run: int
) -> Iterator[Prediction]:
    """`lead` clean windows, then `PATIENCE` of which a share is of the other kind; both drawn anew when used up."""
    rng = np.random.default_rng(run)
    clean, changed = endless(usual, rng), endless(other, rng)
    for _ in range(lead):
        yield next(clean)
    for _ in range(PATIENCE):
        yield next(changed if rng.random() < share else clean)


def endless(windows: Sequence[Prediction], rng: np.random.Generator) -> Iterator[Prediction]:
    while True:
        for n in rng.permutation(len(windows)):
            yield windows[n]


def shuffled(windows: Sequence[Prediction], run: int) -> list[Prediction]:
    return [windows[n] for n in np.random.default_rng(run).permutation(len(windows))]


if __name__ == "__main__":
    main(app)
