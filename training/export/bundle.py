"""A run's best weights as a bundle: split ONNX, twin, probes and the manifest that seals them."""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardroute.audit.evaluation import Subject
from hardroute.models import ModelSpec, VideoMoE, build_model, save_twin
from hardroute.models.spec import MAX_GAIN
from hardroute.runtime.bundle import TRAINING_CLIPS, Bundle, Probes, write_manifest
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays, load_clips, open_set
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import new_folder, write_whole
from hardroute.training.export.onnx_files import compose_single, export_network
from hardroute.training.run import Run, RunRecord

# Largest difference of a logit from its probe that still counts as equal: a hundred times what fp32 backends were
# seen to differ by, and far below what moves a label.
TOLERANCE = 1e-3


def export_bundle(
    run: Run, out: str | Path, *, single: bool = False, probes: int = 8, as_trained: bool = False
) -> Bundle:
    """Export the best weights of a run, its router's scores brought to a size that can be read.

    Args:
        out: the bundle's folder; it must not exist, and appears whole or not at all.
        single: also compose moe.onnx.
        probes: validation clips whose expected outputs travel with the bundle.
        as_trained: leave the router's scores as they are; slopes such as Lips-R are then those of the training.

    Raises:
        DataError: `out` exists, or the run has not finished an epoch.
    """
    model, spec, settings = run.load_best(), run.record.spec, run.record.settings
    val = open_set(settings.data).split("val")
    clips = load_clips(val.take(min(probes, len(val)), settings.seed), settings.contract)
    if not as_trained:
        model, spec = readable(model, spec, clips.frames)
    training = summary(run)
    seen = run.root / TRAINING_CLIPS
    trained_on = seen.read_bytes() if seen.exists() else b""  # of older runs nobody noted them
    return write_bundle(
        model, run.record, clips, out, training=training, single=single, spec=spec, trained_on=trained_on
    )


def summary(run: Run) -> dict[str, Any]:
    """What a bundle's manifest says of the run that it was made from."""
    return {
        "settings": run.record.settings.model_dump(mode="json"),
        "tools": run.record.tools,
        "best_epoch": run.best.model_dump(mode="json", exclude_defaults=True),
    }


def readable(model: VideoMoE, spec: ModelSpec, frames: np.ndarray) -> tuple[VideoMoE, ModelSpec]:
    """The same routes from scores with a spread of about one over frames (P, T, H, W, 3) uint8.

    A method may train with scores so small that every weight in the routing log would be one in M, no margin would
    mean anything, and no probe would notice another route. The factor is a power of two: nothing is rounded.
    """
    factor = Subject.of(model, torch.from_numpy(to_network(frames))).factor
    gain = spec.router.gain * min(factor, 2.0 ** math.floor(math.log2(MAX_GAIN / spec.router.gain)))
    spec = spec.model_copy(update={"router": spec.router.model_copy(update={"gain": gain})})
    scaled = build_model(spec)
    scaled.load_state_dict(model.state_dict())
    return scaled.eval(), spec


def write_bundle(
    model: VideoMoE,
    record: RunRecord,
    clips: ClipArrays,
    out: str | Path,
    *,
    training: Mapping[str, Any],
    single: bool = False,
    spec: ModelSpec | None = None,
    trained_on: bytes = b"",
) -> Bundle:
    """Write `model` as a bundle with `clips` as its probes; see export_bundle.

    `spec`: if it is not the record's. `trained_on`: of `TrainingClips.to_bytes`; empty if it is not known.
    """
    out, spec = Path(out), spec or record.spec
    if out.exists():
        raise DataError(f"{out} exists: remove it or choose another folder")
    with new_folder(out) as folder:
        contract = record.settings.contract
        example = torch.zeros(1, *contract.shape)
        export_network(model.router, example, "router_logits", folder / "router.onnx")
        files = [folder / f"expert_{j}.onnx" for j in range(len(model.experts))]
        for expert, file in zip(model.experts, files, strict=True):
            export_network(expert, example, "logits", file)
        if single:
            compose_single(folder / "router.onnx", files, len(record.classes), folder / "moe.onnx")
        save_twin(model, spec, folder)
        expected(model, clips.frames).save(folder / "probes.npz")
        if trained_on:
            write_whole(folder / TRAINING_CLIPS, trained_on)
        write_manifest(
            folder,
            {
                "name": out.name,
                "classes": record.classes,
                "contract": contract.model_dump(),
                "precision": "fp32",
                "router": "router.onnx",
                "experts": [
                    {"file": file.name, "kind": expert.kind, "width": expert.width}
                    for file, expert in zip(files, spec.experts, strict=True)
                ],
                "single": "moe.onnx" if single else None,
                "twin": {"weights": "twin.safetensors", "config": "twin.json"},
                "probes": "probes.npz",
                "training_clips": TRAINING_CLIPS if trained_on else None,
                "tolerance": TOLERANCE,
                "tools": {
                    "hardroute": version("hardroute"),
                    "python": platform.python_version(),
                    "torch": version("torch"),
                    "onnx": version("onnx"),
                },
                "training": training,
            },
        )
    return Bundle.open(out)


def expected(model: VideoMoE, frames: np.ndarray) -> Probes:
    """What the twin answers to frames (P, T, H, W, 3) uint8."""
    with torch.no_grad():
        outputs = model.outputs(torch.from_numpy(to_network(frames)))
        return Probes(frames, outputs.router.numpy(), outputs.route.numpy(), outputs.deployed.numpy())
