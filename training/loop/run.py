"""A run's folder: settings, metrics, the best and the last weights. Safe against a kill at any moment.

run.json              settings and classes
metrics.jsonl         one line per finished epoch
best/                 twin.safetensors, twin.json: averaged weights of the best robust validation accuracy
epoch-0007/           twin, and everything that resuming needs; only the newest is kept
state.json            which epoch folder is the newest
dynamics.png, events/ how it went, as a picture and for TensorBoard
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hardroute.models import ModelSpec, VideoMoE, load_twin, save_twin
from hardroute.runtime.errors import DataError
from hardroute.training.settings import FitSettings

RESUME = "resume.safetensors"


class RunRecord(BaseModel):
    """run.json: what was asked for, on which classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    settings: FitSettings
    classes: tuple[str, ...]
    tools: dict[str, str]

    @property
    def spec(self) -> ModelSpec:
        return self.settings.model(len(self.classes))


class Run:
    """One run's folder.

    Example:
        >>> run = Run.open("runs/words")
        >>> model = run.load_best()
    """

    def __init__(self, root: Path, record: RunRecord) -> None:
        self.root, self.record = root, record

    @classmethod
    def create(cls, root: str | Path, record: RunRecord) -> "Run":
        """Raises DataError if the folder holds a run already."""
        root = Path(root)
        if (root / "run.json").exists():
            raise DataError(f"{root} holds a run already: continue it with --resume, or choose another --out")
        root.mkdir(parents=True, exist_ok=True)
        write_text(root / "run.json", record.model_dump_json(indent=2) + "\n")
        return cls(root, record)

    @classmethod
    def open(cls, root: str | Path) -> "Run":
        """Raises DataError if the folder holds no readable run."""
        root = Path(root)
        try:
            record = RunRecord.model_validate_json((root / "run.json").read_bytes())
        except FileNotFoundError:
            raise DataError(f"{root} holds no run (no run.json): start one with `python -m training fit`") from None
        except (OSError, ValidationError) as error:
            raise DataError(f"{root / 'run.json'} cannot be read: {str(error).splitlines()[0]}") from None
        return cls(root, record)

    @property
    def finished_epochs(self) -> int:
        """0 for a run that has not finished its first."""
        try:
            return int(json.loads((self.root / "state.json").read_text())["epoch"])
        except FileNotFoundError:
            return 0

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record per finished epoch."""
        path = self.root / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines[: self.finished_epochs]]

    @property
    def best(self) -> dict[str, Any]:
        """The record of the epoch whose weights are in best/: of equals, the latest. Raises as `load_best`."""
        self._require_epoch()
        return best_of(self.metrics)

    def save_epoch(self, epoch: int, model: VideoMoE, resume: dict[str, Tensor], metrics: dict[str, Any]) -> None:
        """Record a finished epoch; state.json moves last, so a kill before it leaves the epoch before as it was."""
        known = self.metrics
        folder = self.root / f"epoch-{epoch:04d}"
        folder.mkdir(exist_ok=True)
        save_twin(model, self.record.spec, folder)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in resume.items()}, folder / RESUME)
        if validated([metrics]) and best_of([*known, metrics]) is metrics:
            (self.root / "best").mkdir(exist_ok=True)
            save_twin(model, self.record.spec, self.root / "best")
        write_text(self.root / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in [*known, metrics]))
        write_text(self.root / "state.json", json.dumps({"epoch": epoch}) + "\n")
        for old in self.root.glob("epoch-*"):
            if old != folder:
                shutil.rmtree(old)

    def load_resume(self) -> dict[str, Tensor]:
        """What save_epoch was last given as `resume`."""
        return load_file(self.root / f"epoch-{self.finished_epochs:04d}" / RESUME)

    def load_best(self) -> VideoMoE:
        """The averaged weights of the best epoch, in eval mode. Raises DataError before the first validation."""
        self._require_epoch()
        return load_twin(self.root / "best")

    def _require_epoch(self) -> None:
        if not validated(self.metrics):
            raise DataError(f"{self.root}: the run has not validated an epoch yet; continue it with --resume")


def best_of(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch of the highest robust validation accuracy; of equals the latest, which trained longest.

    One whose experts were still copies of each other ("copies") is last in line: that is a single network, for which a
    router has nothing to decide.
    """
    return max(reversed(validated(metrics)), key=lambda epoch: ("copies" not in epoch, epoch["robust"]))


def validated(metrics: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The records of the epochs after which validation clips were attacked (`FitSettings.validate_every`)."""
    return [epoch for epoch in metrics if "robust" in epoch]


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
