"""Many processes find what one finds, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hardroute import evaluate
from hardroute.audit.bundles import AUDITED
from hardroute.audit.execution.journal import Journal
from hardroute.audit.execution.processes import Workers, workers
from hardroute.models import VideoMoE
from tests.support.audit_models import answers, eight_bit_clips, mixture
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow  # each process imports torch
EPS = (1 / 255, 3 / 255)


def build() -> dict[str, VideoMoE]:
    torch.manual_seed(0)
    return {AUDITED: mixture()}


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    with workers(2, build) as made:
        assert made is not None
        yield made


@pytest.mark.parametrize("thorough", [False, True])
def test_two_processes_find_what_one_finds(pool: Workers, tmp_path: Path, thorough: bool) -> None:
    model, x = build()[AUDITED], eight_bit_clips(30)
    y = answers(model, x)
    one = evaluate(model, x, y, eps=EPS, suite="standard", steps=3, batch_size=7, thorough=thorough)
    book = Journal(tmp_path, "k")
    for _ in range(2):  # the second time from the journal
        two = evaluate(
            model, x, y, eps=EPS, suite="standard", steps=3, batch_size=7, thorough=thorough, pool=pool, journal=book
        )
        for eps in EPS:
            assert (one.robust[eps] == two.robust[eps]).all() and 0 < one.robust[eps].sum() < 30
            assert (one.adversarial[eps] == two.adversarial[eps]).all()
            assert (one.adversarial_by[eps] == two.adversarial_by[eps]).all()
            for name in one.attacks:
                for book_of in ("per_attack", "tested", "route"):
                    assert (getattr(one, book_of)[name][eps] == getattr(two, book_of)[name][eps]).all()
                np.testing.assert_allclose(
                    one.measures[name][eps].model_slope, two.measures[name][eps].model_slope, rtol=1e-5
                )
                assert (one.costs[name][eps].passes == two.costs[name][eps].passes).all()


def test_attacks_are_sent_by_name(pool: Workers) -> None:
    model, x = build()[AUDITED], eight_bit_clips(2)
    with pytest.raises(ValueError, match="by name"):
        evaluate(model, x, answers(model, x), suite={"pgd": lambda model, x, y, **rest: x}, pool=pool)


def test_one_process_needs_no_pool() -> None:
    with workers(1, build) as none:
        assert none is None


KILLED = """
import os, time
from hardroute.audit.execution.processes import workers
from tests.audit.execution.test_processes import build

if __name__ == "__main__":
    with workers(2, build) as pool:
        print(*[each.result() for each in [pool._pool.submit(os.getpid) for _ in range(8)]], flush=True)
        time.sleep(60)
"""


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    parent = subprocess.Popen(
        [sys.executable, script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    children = {int(pid) for pid in parent.stdout.readline().split()}
    assert children and all(alive(pid) for pid in children)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(400):
        if not any(alive(pid) for pid in children):
            return
        time.sleep(0.05)
    pytest.fail(f"still running: {children}")


def alive(pid: int) -> bool:
    try:
        # A process that ended but that nobody waited for is not running.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
