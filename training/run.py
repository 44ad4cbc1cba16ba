"""A run's folder: settings, metrics, the best and the last weights. Safe against a kill at any moment.

run.json              settings, classes and the digests of the clips
training-clips        digests of each training clip, for the bundle
metrics.jsonl         one line per finished epoch
best/                 twin.safetensors, twin.json: averaged weights of the best robust validation accuracy
epoch-0007/           twin, and everything that resuming needs; only the newest is kept
state.json            which epoch folder is the newest
dynamics.png, events/ how it went, as a picture and for TensorBoard
"""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hardroute.models import ModelSpec, VideoMoE, load_twin, save_twin
from hardroute.runtime.bundle import TRAINING_CLIPS, TrainingClips
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import write_whole
from hardroute.training.settings import FitSettings

RESUME: Final = "resume.safetensors"


class _Record(BaseModel):
    # A loss can be NaN, which JSON proper has no word for.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class ClipsDigest(_Record):
    """Which clips a run saw: how many, and SHA-256 over their videos' digests and over their labels, in order."""

    clips: int
    files: str
    labels: str

    @classmethod
    def of(cls, clips: ClipArrays) -> "ClipsDigest":
        files = hashlib.sha256("".join(f"{digest}\n" for digest in clips.sha256).encode())
        labels = hashlib.sha256("".join(f"{clips.classes[label]}\n" for label in clips.labels).encode())
        return cls(clips=len(clips.labels), files=files.hexdigest(), labels=labels.hexdigest())

    def first_difference(self, other: "ClipsDigest") -> str | None:
        """ "files" or "labels", whichever is not the same in both; None if all is."""
        if (self.clips, self.files) != (other.clips, other.files):
            return "files"
        return "labels" if self.labels != other.labels else None


class RunRecord(_Record):
    """run.json: what was asked for, on which classes and clips. `train`, `val`: None in records of older runs."""

    settings: FitSettings
    classes: tuple[str, ...]
    tools: dict[str, str]
    train: ClipsDigest | None = None
    val: ClipsDigest | None = None

    @property
    def spec(self) -> ModelSpec:
        return self.settings.model(len(self.classes))


class Validation(_Record):
    """What a run saw of itself on its validation clips; shares in [0, 1].

    Attributes:
        robust: of clips right unattacked and under every watched attack; `under`: under each of them.
        load: of unattacked clips, each expert's.
        load_entropy, attacked_load_entropy: as a share of log M.
        route_flips: of clips that an attack sends to another expert.
    """

    clean: float
    robust: float
    under: dict[str, float]
    load: tuple[float, ...]
    load_entropy: float
    attacked_load_entropy: float
    route_flips: float
    clips: int


class EpochRecord(_Record):
    """One line of metrics.jsonl.

    Attributes:
        loss: the mean of each step's over the batches that moved the weights.
        copies: the experts were still copies of each other.
        skipped: batches that moved no weight, because their loss or a gradient was not finite.
        trained_load: each expert's share of the passes of clips through experts, those of the attacks included.
        passes: clips through router and experts, as `hardroute.audit.evaluation.KINDS` counts them.
    """

    epoch: int = Field(ge=1)
    loss: dict[str, float]
    copies: bool = False
    skipped: int = 0
    trained_load: tuple[float, ...] = ()
    passes: dict[str, int] = {}
    seconds: float = 0.0


class ValidatedEpoch(EpochRecord, Validation):
    """An epoch after which validation clips were attacked (`FitSettings.validate_every`)."""


_LINE: Final[TypeAdapter[ValidatedEpoch | EpochRecord]] = TypeAdapter(ValidatedEpoch | EpochRecord)


class _State(_Record):
    """state.json."""

    epoch: int = Field(ge=0)


class Run:
    """One run's folder.

    Example:
        >>> run = Run.open("runs/words")
        >>> model = run.load_best()
    """

    def __init__(self, root: Path, record: RunRecord) -> None:
        self.root, self.record = root, record

    @classmethod
    def create(cls, root: str | Path, record: RunRecord, trained_on: Iterable[tuple[str, str]] = ()) -> "Run":
        """A new run. Raises DataError if the folder holds a run already.

        `trained_on`: digests of the video and of the frames of each training clip.
        """
        root = Path(root)
        if (root / "run.json").exists():
            raise DataError(f"{root} holds a run already: resume it, or choose another folder")
        root.mkdir(parents=True, exist_ok=True)
        write_whole(root / TRAINING_CLIPS, TrainingClips.to_bytes(trained_on))
        write_whole(root / "run.json", record.model_dump_json(indent=2) + "\n")
        return cls(root, record)

    @classmethod
    def open(cls, root: str | Path) -> "Run":
        """Raises DataError if the folder holds no readable run."""
        root = Path(root)
        try:
            record = RunRecord.model_validate_json((root / "run.json").read_bytes())
        except FileNotFoundError:
            raise DataError(f"{root} holds no run (no run.json): start one with `hardroute fit`") from None
        except (OSError, ValidationError) as error:
            raise DataError(f"{root / 'run.json'} cannot be read: {str(error).splitlines()[0]}") from None
        return cls(root, record)

    @property
    def finished_epochs(self) -> int:
        """0 for a run that has not finished its first. Raises DataError if state.json is broken."""
        try:
            return _State.model_validate_json((self.root / "state.json").read_bytes()).epoch
        except FileNotFoundError:
            return 0
        except (OSError, ValidationError):
            raise self._broken("state.json") from None

    @property
    def metrics(self) -> list[EpochRecord]:
        """One record per finished epoch. Raises DataError if state.json or metrics.jsonl is broken."""
        epochs = self.finished_epochs
        try:
            lines = (self.root / "metrics.jsonl").read_bytes().splitlines() if epochs else []
            found = [_LINE.validate_json(line) for line in lines[:epochs]]
        except (OSError, ValidationError):
            raise self._broken("metrics.jsonl") from None
        if [record.epoch for record in found] != list(range(1, epochs + 1)):
            raise self._broken("metrics.jsonl")
        return found

    @property
    def best(self) -> ValidatedEpoch:
        """The record of the epoch whose weights are in best/. Raises as `load_best`."""
        self._require_epoch()
        return best_of(self.metrics)

    def save_epoch(self, model: VideoMoE, resume: dict[str, Tensor], epoch: EpochRecord) -> None:
        """Records a finished epoch; state.json moves last, so a kill before it leaves the epoch before as it was."""
        known = self.metrics
        folder = self.root / f"epoch-{epoch.epoch:04d}"
        folder.mkdir(exist_ok=True)
        save_twin(model, self.record.spec, folder)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in resume.items()}
        write_whole(folder / RESUME, save(tensors), durable=True)
        if isinstance(epoch, ValidatedEpoch) and best_of([*known, epoch]) is epoch:
            (self.root / "best").mkdir(exist_ok=True)
            save_twin(model, self.record.spec, self.root / "best")
        lines = [f"{each.model_dump_json(exclude_defaults=True)}\n" for each in [*known, epoch]]
        write_whole(self.root / "metrics.jsonl", "".join(lines), durable=True)
        write_whole(self.root / "state.json", _State(epoch=epoch.epoch).model_dump_json() + "\n", durable=True)
        for old in self.root.glob("epoch-*"):
            if old != folder:
                shutil.rmtree(old)

    def load_resume(self) -> dict[str, Tensor]:
        """What save_epoch was last given as `resume`. Raises DataError if it cannot be read."""
        name = f"epoch-{self.finished_epochs:04d}/{RESUME}"
        try:
            return load_file(self.root / name)
        except (OSError, SafetensorError):
            raise self._broken(name) from None

    def load_best(self) -> VideoMoE:
        """The averaged weights of the best epoch, in eval mode. Raises DataError before the first validation."""
        self._require_epoch()
        return load_twin(self.root / "best")

    def _require_epoch(self) -> None:
        if not validated(self.metrics):
            raise DataError(f"{self.root}: the run has not validated an epoch yet; resume it")

    def _broken(self, name: str) -> DataError:
        return DataError(f"{self.root / name} is missing or damaged; bring it back from a copy, or start another run")


def best_of(metrics: Sequence[EpochRecord]) -> ValidatedEpoch:
    """The epoch of the highest robust validation accuracy; of equals the most accurate on clean clips, then the latest.

    One whose experts were still copies of each other is last in line: that is a single network, for which a router has
    nothing to decide.
    """
    return max(reversed(validated(metrics)), key=lambda epoch: (not epoch.copies, epoch.robust, epoch.clean))


def validated(metrics: Sequence[EpochRecord]) -> list[ValidatedEpoch]:
    """The records of the epochs after which validation clips were attacked."""
    return [epoch for epoch in metrics if isinstance(epoch, ValidatedEpoch)]
