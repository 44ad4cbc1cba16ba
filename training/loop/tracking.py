"""How a run went, epoch by epoch: a picture, and one file of events that TensorBoard reads."""

import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from hardroute.audit.report import BLUE, LINES, MUTED, ORANGE, figure, save
from hardroute.runtime.files import write_whole
from hardroute.training.run import EpochRecord, validated

EVENTS: Final = "events.out.tfevents.hardroute"  # TensorBoard looks for files with "tfevents" in their names


def scalars(record: EpochRecord) -> dict[str, float]:
    """The numbers of one epoch's record, flat: nested names are joined by slashes, lists numbered."""
    return _flat(record.model_dump(exclude_defaults=True))


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Sequence):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in _flat(value).items()}
        else:
            found[name] = float(value)
    return found


class EventFile:
    """The event file of a run, in its folder `events`; `tensorboard --logdir RUN` shows it.

    Begun anew whenever a run goes on, so that it holds each epoch once, whatever was half-written before.
    """

    def __init__(self, folder: Path, metrics: Sequence[EpochRecord] = ()) -> None:
        folder.mkdir(exist_ok=True)
        for other in folder.glob("*tfevents*"):
            other.unlink()
        self.path = folder / EVENTS
        version = Event(wall_time=time.time(), file_version="brain.Event:2")
        write_whole(self.path, _framed(version) + b"".join(map(_event, metrics)))

    def add(self, record: EpochRecord) -> None:
        """Appends one epoch. Raises OSError."""
        with self.path.open("ab") as file:
            file.write(_event(record))


def _event(record: EpochRecord) -> bytes:
    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(record).items()]
    return _framed(Event(wall_time=time.time(), step=record.epoch, summary=Summary(value=values)))


def _framed(event: Event) -> bytes:
    """A TFRecord: length, its checksum, the data, its checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))])


def draw(path: str | Path, metrics: Sequence[EpochRecord]) -> None:
    """PNG of all validated epochs so far: accuracy unattacked and under each watched attack, and the experts' load."""
    seen = validated(metrics)
    if not seen:
        return
    epochs = [epoch.epoch for epoch in seen]
    drawing, (accuracy, load) = figure(7.2, 5.2, rows=2)
    accuracy.plot(epochs, [100 * epoch.clean for epoch in seen], color=ORANGE, lw=1.8, label="unattacked")
    for colour, name in zip(LINES, seen[-1].under, strict=False):
        shares = [100 * epoch.under[name] for epoch in seen]
        accuracy.plot(epochs, shares, color=colour, lw=1.2, ls=(0, (4, 2)), label=name)
    accuracy.plot(epochs, [100 * epoch.robust for epoch in seen], color=BLUE, lw=2.4, label="worst of them")
    accuracy.set(ylabel="validation accuracy, %", ylim=(-2, 102))
    accuracy.legend(frameon=False, fontsize=8, ncols=3)
    experts = len(seen[-1].load)
    for expert, colour in zip(range(experts), LINES * 11, strict=False):
        load.plot(epochs, [epoch.load[expert] for epoch in seen], color=colour, lw=1.6, label=f"expert {expert}")
    load.axhline(1 / experts, color=MUTED, lw=0.8, ls=":")
    load.set(xlabel="epoch", ylabel="share of clips", ylim=(-0.02, 1.02))
    load.legend(frameon=False, fontsize=8, ncols=4)
    save(drawing, path)
