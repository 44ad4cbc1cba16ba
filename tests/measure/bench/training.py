"""Adversarial training against the shortest loop that does it on the same mixture."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from hardroute.models import build_model
from hardroute.runtime.datasets import ClipArrays
from hardroute.training.balance import load_balance
from hardroute.training.loop import Trainer
from hardroute.training.run import EpochRecord, Run, RunRecord
from hardroute.training.settings import FitSettings
from tests.measure.bench.attacking import EPS, minimal
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.subject import Subject

BATCH, INNER = 16, 3


class Silent:
    def batch(self, epoch: int, step: str, done: int, total: int, loss: float, progress: float) -> None: ...
    def epoch(self, record: EpochRecord) -> None: ...
    def warn(self, text: str) -> None: ...


def training(subject: Subject) -> list[Ratio]:
    """One epoch of AT-M over two batches, as the trainer runs it without its validation, and by hand."""
    frames, labels = subject.frames[: 2 * BATCH], subject.labels[: 2 * BATCH]
    size = frames.shape[2]
    fit = FitSettings(
        data="none", method="at-m", width=16, blocks=(1, 1, 1, 0), frames=frames.shape[1], size=size, batch=BATCH,
        inner_steps=INNER, shift=0, ramp=0.0, average=0.9, epochs=10**6,
    )  # fmt: skip
    names = tuple(map(str, range(len(labels))))
    classes = tuple(str(index) for index in range(int(np.max(labels)) + 1))
    clips = ClipArrays(frames, labels, names, names, classes)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder), RunRecord(settings=fit, classes=classes, tools={}))
        trainer = Trainer(run, clips, clips, Silent())

    torch.manual_seed(0)
    model = build_model(fit.model(len(classes)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    x = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float().div(255).contiguous()
    y = torch.from_numpy(labels)

    def by_hand() -> None:
        for start in (0, BATCH):
            clean, target = x[start : start + BATCH], y[start : start + BATCH]
            x_adv = minimal(model.eval(), clean, target, EPS, 2.5 / INNER * EPS, INNER, random_start=True)
            model.train().requires_grad_(True)
            outputs = model.outputs(x_adv.detach(), "switch")
            loss = cross_entropy(outputs.logits, target) + fit.balance * load_balance(outputs.router)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

    def ours() -> None:
        trainer._sweep(trainer.whole, trainer.method.steps[0], 1, 0, 1)

    # At least 0.95 of its passes per second: at most 1 / 0.95 of its time.
    return [compare(f"AT-M, 2 batches of {BATCH} / loop by hand", ours, by_hand, goal=1.053, turns=9)]
