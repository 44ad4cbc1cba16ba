"""`python -m tests.bench BUNDLE --out FILE`: a table of ratios, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from audit.attacks import ATTACKS
from models import VideoMoE, load_twin
from runtime import Engine
from runtime.backends import Session, open_backend
from runtime.clips import load_clips, open_set, to_network
from runtime.errors import main
from tests.bench.measure import Ratio, compare

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def serving(engine: Engine, twin: VideoMoE, frames: np.ndarray) -> list[Ratio]:
    """The engine against the bare calls that it cannot do without, against all experts, against eager PyTorch."""
    backend, manifest = open_backend("cpu"), engine.bundle.manifest
    router, *experts = (
        backend.load(engine.bundle.read(name), name)
        for name in (manifest.router, *(expert.file for expert in manifest.experts))
    )
    results = []
    for n in (1, 8):
        clips = frames[:n]
        x = to_network(clips)
        tensor = torch.from_numpy(x)

        def bare(x: np.ndarray = x) -> None:
            route = router.run(x).argmax(1)
            for j in np.unique(route):
                experts[j].run(x[route == j])

        def everything(x: np.ndarray = x, chain: tuple[Session, ...] = (router, *experts)) -> None:
            for session in chain:
                session.run(x)

        def eager(tensor: torch.Tensor = tensor) -> None:
            with torch.inference_mode():
                twin(tensor)

        def ours(clips: np.ndarray = clips) -> None:
            engine.predict_batch(clips)

        results += [
            compare(f"predict_batch / bare session calls, batch {n}", ours, bare),
            compare(f"routed / all experts, batch {n}", bare, everything),
            compare(f"predict_batch / PyTorch twin, batch {n}", ours, eager),
        ]
    return results


def attacking(twin: VideoMoE, frames: np.ndarray, labels: np.ndarray) -> list[Ratio]:
    """PGD-10 against the shortest loop that does it: autograd.grad on x, weights frozen."""
    x, y = torch.from_numpy(to_network(frames[:16])), torch.from_numpy(labels[:16])
    eps = 8 / 255

    def minimal() -> None:
        twin.requires_grad_(False)
        x_adv = (x + eps * torch.empty_like(x).uniform_(-1, 1)).clamp(0, 1)
        for _ in range(10):
            x_adv.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(twin(x_adv), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = torch.min(torch.max(x_adv.detach() + eps / 4 * gradient.sign(), x - eps), x + eps).clamp(0, 1)

    def ours() -> None:
        ATTACKS["pgd-hard"](twin, x, y, eps, steps=10)

    return [compare("PGD-10 / minimal loop, 16 clips", ours, minimal, goal=1.05, turns=7)]


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="bundle to measure")] = Path("models/zoo/motion"),
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-output/bench.json"),
) -> None:
    """Measure, print a table, write JSON."""
    clip_set = open_set("motion:train=0,val=0,test=8")
    with Engine.load(bundle) as engine:
        clips = load_clips(clip_set, engine.contract)
        twin = load_twin(bundle)
        results = serving(engine, twin, clips.frames) + attacking(twin, clips.frames, clips.labels)
    table = Table(title=f"{bundle}, {os.cpu_count()} cores")
    for column in ("what", "ours, ms", "theirs, ms", "ratio", "quartiles", "goal"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for r in results:
        goal = f"<= {r.goal}" if r.goal else ""
        times = f"{1000 * r.ours:.2f}", f"{1000 * r.theirs:.2f}"
        table.add_row(r.name, *times, f"{r.ratio:.3f}", f"{r.low:.3f} to {r.high:.3f}", goal)
    Console(width=110).print(table)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    tools = {name: version(name) for name in ("torch", "onnxruntime", "numpy")}
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "tools": tools, "ratios": [r.as_dict() for r in results]}
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"JSON: {out}")


if __name__ == "__main__":
    main(app)
