"""`python -m tests.measure.parity BUNDLE --data SET --backend NAME`: do all forms of a bundle agree, and who ran?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import typer

from hardroute import Engine
from hardroute.models import load_twin
from hardroute.runtime.backends import AUTO, BACKENDS, Session, Uint8Backend, open_backend
from hardroute.runtime.cli import main
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays, load_clips, open_set
from hardroute.runtime.errors import BackendError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Answers = tuple[np.ndarray, np.ndarray]  # logits (N, K), routes (N,)


class Counting:
    """A backend that counts the clips that each network is given."""

    def __init__(self, name: str) -> None:
        self.backend = open_backend(name)
        self.clips: dict[str, int] = {}
        if isinstance(self.backend, Uint8Backend):
            self.load_uint8 = partial(self._load, self.backend.load_uint8)

    def load(self, model: bytes, name: str) -> Session:
        return self._load(self.backend.load, model, name)

    def _load(self, load: Callable[[bytes, str], Session], model: bytes, name: str) -> Session:
        self.clips[name] = 0
        return Counted(load(model, name), self.clips, name)


class Counted:
    def __init__(self, session: Session, clips: dict[str, int], name: str) -> None:
        self.session, self.clips, self.name = session, clips, name

    def run(self, clips: np.ndarray) -> np.ndarray:
        self.clips[self.name] += len(clips)
        return self.session.run(clips)


def twin_answers(bundle: Path) -> Callable[[np.ndarray], Answers]:
    twin = load_twin(bundle)

    def answer(frames: np.ndarray) -> Answers:
        with torch.no_grad():
            outputs = twin.outputs(torch.from_numpy(to_network(frames)))
            return outputs.deployed.numpy(), outputs.route.numpy()

    return answer


def engine_answers(bundle: Path, backend: Counting) -> Callable[[np.ndarray], Answers]:
    # Without the probes: what a backend that they would refuse gets wrong is what this is to show.
    engine = Engine.load(bundle, backend, verify=False)

    def answer(frames: np.ndarray) -> Answers:
        found = engine.predict_batch(frames)
        return np.stack([p.logits for p in found]), np.array([p.route.expert for p in found])

    return answer


def single_answers(file: Path) -> Callable[[np.ndarray], Answers]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def answer(frames: np.ndarray) -> Answers:
        logits, route = session.run(["logits", "route"], {"clip": to_network(frames)})
        return logits, route

    return answer


def over(clips: ClipArrays, batch: int, answer: Callable[[np.ndarray], Answers]) -> Answers:
    pieces = [answer(clips.frames[start : start + batch]) for start in range(0, len(clips.labels), batch)]
    return np.concatenate([logits for logits, _ in pieces]), np.concatenate([routes for _, routes in pieces])


@app.command()
def parity(
    bundle: Annotated[Path, typer.Argument(help="a bundle with its twin")],
    data: Annotated[str, typer.Option(help="labelled set")],
    split: Annotated[list[str] | None, typer.Option(help="splits to use; default test")] = None,
    backend: Annotated[list[str] | None, typer.Option(help=f"some of {', '.join(BACKENDS)}; default all here")] = None,
    batch: Annotated[int, typer.Option(help="clips per call")] = 16,
) -> None:
    """Compare labels, routes and logits of each backend and of moe.onnx with the PyTorch twin's."""
    with Engine.load(bundle, AUTO) as engine:
        print(engine.chosen_because)
        manifest, contract = engine.bundle.manifest, engine.contract
    for name in split or ["test"]:
        clips = load_clips(open_set(data).split(name), contract)
        expected, chosen = over(clips, batch, twin_answers(bundle))
        right = int((expected.argmax(1) == clips.labels).sum())
        print(f"{name}: {len(chosen)} clips, batch {batch}; the twin gets {right} right, load {np.bincount(chosen)}")

        def report(what: str, answers: Answers, expected: np.ndarray = expected, chosen: np.ndarray = chosen) -> None:
            logits, routes = answers
            labels = int((logits.argmax(1) == expected.argmax(1)).sum())
            gap = np.abs(logits - expected)[routes == chosen].max()
            print(
                f"  {what:14} {labels} labels and {int((routes == chosen).sum())} routes of {len(chosen)} as the twin; "
                f"largest logit difference where the route agrees {gap:.2e}"
            )

        for option in backend or BACKENDS:
            try:
                counting = Counting(option)
                found = over(clips, batch, engine_answers(bundle, counting))
            except BackendError as error:
                print(f"  {option:14} {str(error).split('; it needs')[0]}")
                continue
            report(option, found)
            print(f"  {'':14} clips run: {counting.clips}")
        if manifest.single:
            report(manifest.single, over(clips, batch, single_answers(bundle / manifest.single)))


if __name__ == "__main__":
    main(app)
