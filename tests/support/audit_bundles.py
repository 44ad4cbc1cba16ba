"""Tiny bundles with a twin, and sets whose labels the twin gives: audits with a known outcome, in seconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hardroute.audit import bundles as audited
from hardroute.models import VideoMoE
from hardroute.runtime.bundle import write_manifest
from hardroute.runtime.clips import decode, to_network
from tests.support import bundles


class LinearTwin(nn.Module):
    """The network of `bundles.Linear`."""

    def __init__(self, linear: bundles.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(linear.weight))
        self.bias = nn.Parameter(torch.from_numpy(linear.bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight + self.bias


def twin_of(tiny: bundles.TinyBundle) -> VideoMoE:
    return VideoMoE(LinearTwin(tiny.router), [LinearTwin(expert) for expert in tiny.experts]).eval()


def bundle_with_twin(root: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0, **fields: Any) -> VideoMoE:
    """Writes a tiny bundle. The twin is linear, which no checkpoint can be, so `load_twin` is replaced."""
    tiny = bundles.make_bundle(root, seed=seed, **fields)
    (root / "twin.safetensors").write_bytes(b"")
    (root / "twin.json").write_text("{}")
    reseal(root, twin={"weights": "twin.safetensors", "config": "twin.json"})
    known = audited.load_twin
    monkeypatch.setattr(audited, "load_twin", lambda bundle: twin_of(tiny) if bundle.root == root else known(bundle))
    return twin_of(tiny)


def reseal(root: Path, **changes: object) -> None:
    """New digests for the files as they are now: a bundle that is whole, whatever is in it."""
    fields = json.loads((root / "manifest.json").read_text()) | changes
    for name in ("schema_version", "files"):
        fields.pop(name)
    write_manifest(root, fields)


def labelled_set(folder: Path, model: VideoMoE, clips: int = 24, classes: tuple[str, ...] = bundles.CLASSES) -> Path:
    """Real videos that `model` classifies right in split test; in split train one per class, right or not."""
    folder.mkdir()
    rows = []
    for n in range(clips):
        path = bundles.write_video(folder / f"{n}.mp4", seed=n)
        with torch.no_grad():
            x = torch.from_numpy(to_network(decode(path, bundles.CONTRACT).frames[None]))
            rows.append([path.name, classes[int(model(x).argmax())], "test", f"g{n}"])
    for name in classes:
        path = bundles.write_video(folder / f"train_{len(rows)}.mp4", seed=len(rows))
        rows.append([path.name, name, "train", f"g{len(rows)}"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "split", "group"], *rows])
    return folder


def lax_policy(path: Path, **thresholds: float) -> Path:
    """Asks for nothing but what `thresholds` say."""
    asked = {
        "clean_accuracy": 0.0,
        "robust_accuracy": 0.0,
        "min_load_entropy": 0.0,
        "min_agreement": 0.0,
        "max_dead_gradients": 1.0,
        "min_second_choice": 0.0,
    } | thresholds
    path.write_text(
        'schema_version = 1\nname = "lax"\n[data]\nsplit = "test"\nclips = 100\nseed = 0\n'
        '[attacks]\nsuite = "quick"\neps = [1, 2]\ngate_eps = 2\nsteps = 3\nseed = 0\n[thresholds]\n'
        + "".join(f"{name} = {value}\n" for name, value in asked.items())
    )
    return path
