"""Several processes train as one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hardroute.runtime.errors import MethodError
from hardroute.training.settings import FitSettings
from tests.support.paths import ROOT

FIT = "-m training fit --data motion:train=2,val=1,test=1 --epochs 2 --method j-tlat --experts 2 --width 2"
FIT += " --router-width 2 --blocks 1,1,0,0 --frames 4 --size 16 --batch 8 --inner-steps 1 --average 0.5"


def fit(out: Path, processes: int, *more: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    start = (
        [sys.executable] if processes == 1 else [*launcher, "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    )
    command = [*start, *FIT.split(), "--out", str(out), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_two_processes_and_one_end_with_the_same_weights(tmp_path: Path) -> None:
    runs = {}
    for processes in (1, 2):
        done = fit(tmp_path / str(processes), processes, "--shards", "2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best epoch") == 1, "one process speaks"
        runs[processes] = tmp_path / str(processes)
    one, two = (load_file(run / "epoch-0002" / "resume.safetensors") for run in runs.values())
    assert one.keys() == two.keys()
    # Batch norm counts batches too, which nothing reads.
    for name in (name for name in one if "num_batches_tracked" not in name):
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    first, second = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs.values()
    )
    assert [epoch["passes"] for epoch in first] == [epoch["passes"] for epoch in second]


def test_shards_that_processes_cannot_share_are_refused() -> None:
    fit = FitSettings(data="none", batch=8, shards=2)
    fit.check_processes(2)
    for size, settings in (
        (3, fit),
        (2, FitSettings(data="none", batch=8)),
        (1, FitSettings(data="none", batch=8, shards=8)),
    ):
        with pytest.raises(MethodError, match="shards"):
            settings.check_processes(size)
