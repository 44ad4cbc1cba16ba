"""Tiny bundles whose answers have a closed form, so that tests need no trained network and no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hardroute import Bundle, ClipContract, Engine
from hardroute.runtime.bundle import (
    Accuracy,
    Baseline,
    Certificate,
    CertifiedBundle,
    CertifiedData,
    CertifiedPolicy,
    PolicyContent,
    Probes,
    write_manifest,
)

CONTRACT = ClipContract(frames=4, height=8, width=8)
CLASSES = ("left", "right", "up")


@dataclass(frozen=True)
class Linear:
    """logits = flattened clip in [0, 1] @ weight + bias."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The oracle: (N, T, H, W, 3) uint8 -> (N, outputs), in float64, sharing no code with the runtime."""
        flat = (frames.transpose(0, 4, 1, 2, 3) / 255.0).reshape(len(frames), -1)
        return flat @ self.weight.astype(np.float64) + self.bias

    def to_onnx(self, contract: ClipContract, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["clip"], ["flat"], axis=1),
                helper.make_node("Gemm", ["flat", "weight", "bias"], [output]),
            ],
            "linear",
            [helper.make_tensor_value_info("clip", TensorProto.FLOAT, ["batch", *contract.shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", len(self.bias)])],
            [numpy_helper.from_array(self.weight, "weight"), numpy_helper.from_array(self.bias, "bias")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@dataclass(frozen=True)
class TinyBundle:
    """A bundle on disk and the arithmetic that it must agree with."""

    root: Path
    router: Linear
    experts: tuple[Linear, ...]

    def routes(self, frames: np.ndarray) -> np.ndarray:
        return self.router(frames).argmax(axis=1)

    def logits(self, frames: np.ndarray) -> np.ndarray:
        return np.stack([self.experts[route](frames[n : n + 1])[0] for n, route in enumerate(self.routes(frames))])


def random_frames(count: int, contract: ClipContract = CONTRACT, seed: int = 0) -> np.ndarray:
    """(count, T, H, W, 3) uint8 noise."""
    shape = (count, contract.frames, contract.height, contract.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_bundle(
    root: Path,
    *,
    contract: ClipContract = CONTRACT,
    classes: Sequence[str] = CLASSES,
    experts: int = 3,
    seed: int = 0,
    gain: float = 1.0,
    **fields: Any,
) -> TinyBundle:
    """Writes a bundle with a linear router and linear experts into the new folder `root`.

    `gain` scales the router's logits; `fields` replace those of the manifest. It has no PyTorch twin.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    networks = [_linear(rng, contract, experts)] + [_linear(rng, contract, len(classes)) for _ in range(experts)]
    networks[0] = Linear(networks[0].weight * np.float32(gain), networks[0].bias * np.float32(gain))
    tiny = TinyBundle(root, networks[0], tuple(networks[1:]))
    names = ["router.onnx", *(f"expert_{n}.onnx" for n in range(experts))]
    for network, name in zip(networks, names, strict=True):
        output = "router_logits" if name == "router.onnx" else "logits"
        (root / name).write_bytes(network.to_onnx(contract, output).SerializeToString())
    frames = random_frames(8, contract, seed=seed + 1)
    Probes(frames, tiny.router(frames), tiny.routes(frames), tiny.logits(frames)).save(root / "probes.npz")
    manifest: dict[str, Any] = {
        "name": "tiny",
        "classes": classes,
        "contract": contract.model_dump(),
        "precision": "fp32",
        "router": "router.onnx",
        "experts": [{"file": name, "kind": "linear", "width": 1} for name in names[1:]],
        "probes": "probes.npz",
        "tolerance": 1e-3,
        "tools": {"onnx": onnx.__version__},
    }
    write_manifest(root, {**manifest, **fields})
    return tiny


def _linear(rng: np.random.Generator, contract: ClipContract, outputs: int) -> Linear:
    size = int(np.prod(contract.shape))
    weight = rng.normal(0, 3 / np.sqrt(size), (size, outputs))
    # Centred columns: what all clips have in common cancels, so that random clips take different routes.
    weight -= weight.mean(axis=0)
    return Linear(weight.astype(np.float32), rng.normal(0, 0.1, outputs).astype(np.float32))


def certify(root: Path) -> None:
    """Puts a certificate into a bundle, with a baseline of random clips."""
    bundle = Bundle.open(root)
    with Engine.load(bundle, threads=1) as engine:
        baseline = Baseline.of(engine.predict_batch(random_frames(64, bundle.manifest.contract)))
    bundle.attach(certificate_for(bundle, baseline).to_bytes())


def certificate_for(bundle: Bundle, baseline: Baseline) -> Certificate:
    """What an audit of random clips would say that found nothing wrong."""
    return Certificate(
        created="2026-01-01T00:00:00+00:00",
        bundle=CertifiedBundle(name=bundle.manifest.name, digest=bundle.digest),
        policy=CertifiedPolicy(digest="0" * 64, content=PolicyContent(name="quick")),
        data=CertifiedData(name="random", split="test", clips=baseline.clips, limit=None, digest="1" * 64),
        threat_model={"norm": "L-inf"},
        attacks=("fgsm", "pgd"),
        sources=None,
        clean_accuracy=Accuracy(successes=64, n=64, share=1.0, low=0.9, high=1.0, confidence=0.95),
        robust_accuracy=(),
        baseline=baseline,
        checks=(),
        versions={"python": "3.11"},
        report_sha256="2" * 64,
    )


def edit_manifest(root: Path, **changes: Any) -> None:
    """Overwrites fields of `manifest.json` and seals it again: what an attacker does who can write there."""
    reseal(root, json.dumps({**json.loads((root / "manifest.json").read_text()), **changes}))


def reseal(root: Path, manifest: str) -> None:
    """Puts any text in place of `manifest.json`, with a seal as `sha256sum` would write it."""
    (root / "manifest.json").write_text(manifest)
    (root / "manifest.sha256").write_text(f"{digest_of(root)}  manifest.json\n")


def replace_file(root: Path, name: str, data: bytes) -> None:
    """Overwrites a file and its digest: what an attacker does who can also write the manifest."""
    (root / name).write_bytes(data)
    files = json.loads((root / "manifest.json").read_text())["files"]
    edit_manifest(root, files={**files, name: hashlib.sha256(data).hexdigest()})


def write_video(path: Path, frames: int = 12, size: int = 32, seed: int = 0) -> Path:
    """A real .mp4 of a moving bright square on noise."""
    rng = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12, (size, size))
    assert writer.isOpened()
    for n in range(frames):
        frame = rng.integers(0, 80, (size, size, 3), np.uint8)
        left = (n + 3 * seed) % (size - 8)
        frame[8:16, left : left + 8] = 255
        writer.write(frame)
    writer.release()
    return path


def digest_of(root: Path) -> str:
    return hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
