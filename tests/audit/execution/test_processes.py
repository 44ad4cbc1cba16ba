"""Many processes find what one finds, and none outlives its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardroute import Evaluation, evaluate
from hardroute.audit.execution.journal import Journal, Member
from hardroute.audit.execution.processes import workers
from hardroute.models import VideoMoE
from hardroute.runtime.errors import HardrouteError
from tests.support.audit_models import answers, eight_bit_clips, mixture
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow  # each process imports torch
EPS = (1 / 255, 3 / 255)


def build() -> VideoMoE:
    torch.manual_seed(0)
    return mixture()


def evaluated(journal: Journal | None, thorough: bool, suite: Any = "standard") -> Evaluation:
    model, x = build(), eight_bit_clips(30)
    return evaluate(
        model, x, answers(model, x), eps=EPS, suite=suite, steps=3, batch_size=7, thorough=thorough, journal=journal
    )


def attacked(folder: Path, what: str, thorough: bool, member: Member) -> None:
    """Attacks as one of several processes; the one that reports waits in its first attack until the other has begun."""

    def met(model: VideoMoE, x: torch.Tensor, y: torch.Tensor, **rest: Any) -> torch.Tensor:
        begun = folder / f"the other of {what} has begun"
        if member.reports:
            while not begun.exists():
                time.sleep(0.01)
        elif not begun.exists():
            begun.touch()
            if what == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "complains":
                raise HardrouteError("planted in the other")
            if what == "breaks":
                raise ValueError("planted in the other")
        (folder / f"{os.getpid()}").touch()
        return x

    evaluated(Journal(folder, what, member), thorough, {"met": met, "again": met})


def beside(folder: Path, thorough: bool, member: Member) -> None:
    evaluated(Journal(folder, "k", member), thorough)


@pytest.mark.parametrize("thorough", [False, True])
def test_two_processes_find_what_one_finds(tmp_path: Path, thorough: bool) -> None:
    one = evaluated(None, thorough)
    with workers(2, partial(beside, tmp_path, thorough)) as member:
        shared = evaluated(Journal(tmp_path, "k", member), thorough)
    for two in (shared, evaluated(Journal(tmp_path, "k"), thorough)):  # the second time from the journal alone
        for eps in EPS:
            assert (one.robust[eps] == two.robust[eps]).all() and 0 < one.robust[eps].sum() < 30
            assert (one.adversarial[eps] == two.adversarial[eps]).all()
            assert (one.adversarial_by[eps] == two.adversarial_by[eps]).all()
            for name in one.attacks:
                for field in ("per_attack", "tested", "route"):
                    assert (getattr(one, field)[name][eps] == getattr(two, field)[name][eps]).all()
                np.testing.assert_allclose(
                    one.measures[name][eps].model_slope, two.measures[name][eps].model_slope, rtol=1e-5
                )
                assert (one.costs[name][eps].passes == two.costs[name][eps].passes).all()


def test_both_do_some_of_it(tmp_path: Path) -> None:
    with workers(2, partial(attacked, tmp_path, "works", True)) as member:
        attacked(tmp_path, "works", True, member)
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 2


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("dies", HardrouteError, "worker 1 has ended; start the audit again"),
        ("complains", HardrouteError, "^planted in the other$"),
        ("breaks", RuntimeError, "Traceback .*ValueError: planted in the other"),
    ],
)
def test_what_goes_wrong_in_another_is_told_by_the_one_that_reports(
    tmp_path: Path, what: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=f"(?s){says}"), workers(2, partial(attacked, tmp_path, what, True)) as member:
        attacked(tmp_path, what, True, member)


NOTE = json.dumps({"run": "another", "by": "worker 7", "state": "begun"}).encode()


@pytest.mark.parametrize("note", [b"", b"\0", b'"text"', b"[]", NOTE, NOTE[:9]])
def test_a_claim_left_by_an_earlier_run_is_no_claim(tmp_path: Path, note: bytes) -> None:
    """Nor is it believed, whatever it holds."""
    evaluated(Journal(tmp_path, "k"), True, "quick")
    for path in (tmp_path / "k").iterdir():
        path.with_suffix(".claim").write_bytes(note)
        path.unlink()
    member = Member("alone", "this run", reports=True)
    one, two = evaluated(None, True, "quick"), evaluated(Journal(tmp_path, "k", member), True, "quick")
    assert all((one.robust[eps] == two.robust[eps]).all() for eps in EPS)


KILLED = """
import multiprocessing, time
from functools import partial
from pathlib import Path
from hardroute.audit.execution.processes import workers
from tests.audit.execution.test_processes import asleep

if __name__ == "__main__":
    with workers(3, asleep):
        print(*[each.pid for each in multiprocessing.active_children()], flush=True)
        time.sleep(60)
"""


def asleep(member: Member) -> None:
    time.sleep(60)


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
    assert len(children) == 2 and all(alive(pid) for pid in children)
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
