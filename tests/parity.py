"""`python -m tests.parity BUNDLE --data SET`: do the twin, the split files and moe.onnx say the same, and who ran?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import typer

from models import load_twin
from runtime import Engine
from runtime.backends import Session, open_backend
from runtime.clips import load_clips, open_set, to_network
from runtime.errors import main

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Counting:
    """A backend that counts the clips that each network is given."""

    def __init__(self) -> None:
        self.backend = open_backend("cpu")
        self.clips: dict[str, int] = {}

    def load(self, model: bytes, name: str) -> Session:
        self.clips[name] = 0
        return Counted(self.backend.load(model, name), self.clips, name)


class Counted:
    def __init__(self, session: Session, clips: dict[str, int], name: str) -> None:
        self.session, self.clips, self.name = session, clips, name

    def run(self, clips: np.ndarray) -> np.ndarray:
        self.clips[self.name] += len(clips)
        return self.session.run(clips)


@app.command()
def parity(
    bundle: Annotated[Path, typer.Argument(help="a bundle exported with --single")],
    data: Annotated[str, typer.Option(help="labelled set; its test split is used")],
    batch: Annotated[int, typer.Option(help="clips per call")] = 16,
) -> None:
    """Compare labels, routes and logits over a set's test split."""
    counting = Counting()
    with Engine.load(bundle, backend=counting, verify=False) as engine:
        clips = load_clips(open_set(data).split("test"), engine.contract)
        single = onnxruntime.InferenceSession(bundle / "moe.onnx", providers=["CPUExecutionProvider"])
        twin = load_twin(bundle)
        rows: dict[str, list[np.ndarray]] = {name: [] for name in ("twin", "split", "single")}
        routes: dict[str, list[np.ndarray]] = {name: [] for name in rows}
        for start in range(0, len(clips.labels), batch):
            frames = clips.frames[start : start + batch]
            x = to_network(frames)
            with torch.no_grad():
                outputs = twin.outputs(torch.from_numpy(x))
                rows["twin"].append(outputs.deployed.numpy())
                routes["twin"].append(outputs.route.numpy())
            answers = engine.predict_batch(frames)
            rows["split"].append(np.stack([a.logits for a in answers]))
            routes["split"].append(np.array([a.route.expert for a in answers]))
            logits, route = single.run(["logits", "route"], {"clip": x})
            rows["single"].append(logits)
            routes["single"].append(route)
    expected, chosen = np.concatenate(rows["twin"]), np.concatenate(routes["twin"])
    print(f"{len(chosen)} clips, batch {batch}; load of the twin's route {np.bincount(chosen).tolist()}")
    for name in ("split", "single"):
        found, route = np.concatenate(rows[name]), np.concatenate(routes[name])
        same = int((found.argmax(1) == expected.argmax(1)).sum()), int((route == chosen).sum())
        print(f"{name:6} against twin: {same[0]} labels and {same[1]} routes of {len(chosen)} equal, "
              f"largest logit difference {np.abs(found - expected).max():.2e}")  # fmt: skip
    print(f"clips run by each network of the split files: {counting.clips}")


if __name__ == "__main__":
    main(app)
