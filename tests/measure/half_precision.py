"""Which layers' gradients are wrong in bfloat16 on this machine: `python -m tests.measure.half_precision`.

For each kind of expert and the router, at the widths and sizes that docs/experiments.md trains at: the layers that
`hardroute.models.half_precision` finds beyond rounding, and so keeps in fp32.
"""

from __future__ import annotations

import argparse
import itertools

import torch

from hardroute.models import KINDS, ExpertSpec, ModelSpec, build_model
from hardroute.models.half_precision import LayerError, prove_gradients


def table(sizes: list[int], frames: list[int], batches: list[int], width: int, weights: bool) -> None:
    print(f"torch {torch.__version__}, {torch.cpu.get_capabilities()['cpu_name']}, width {width}, batches {batches}")
    print("| kind | frames | size | layers | worst that passed | in fp32 |\n|---|---|---|---|---|---|")
    for kind, size, count in itertools.product(KINDS, sizes, frames):
        torch.manual_seed(0)
        model = build_model(ModelSpec(classes=10, experts=(ExpertSpec(kind=kind, width=width),) * 2))
        clips = [torch.rand(n, 3, count, size, size) for n in batches]
        found = prove_gradients(model, clips, torch.bfloat16, weights)
        found = [each for each in found if not each.layer.startswith("experts.1")]
        passed = max(each.worst[1] for each in found if not each.failed)
        print(f"| {kind} | {count} | {size} | {len(found)} | {passed:.4f} | {named(found)} |", flush=True)


def named(found: list[LayerError]) -> str:
    """The layers that failed, as in `layer3.0.conv1.0: weight gradient 1.1`."""
    failed = [each for each in found if each.failed]
    return ", ".join(f"{each.layer.removeprefix('experts.0.')}: {each.worst[0]} {each.worst[1]:.2g}" for each in failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs="+", default=[48])
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 12, 16])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 8])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--attack", action="store_true", help="outputs and inputs' gradients alone")
    given = parser.parse_args()
    table(given.size, given.frames, given.batch, given.width, not given.attack)
