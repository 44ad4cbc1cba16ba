"""An audit under torchrun is the audit of one process, and ends when one of its processes does."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit.execution.test_journal import report_of
from tests.audit.test_cli import Audited
from tests.support.audit_bundles import bundle_with_twin, labelled_set, lax_policy
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow  # each process imports torch
# The command line with the linear twin of tests/audit_bundles.py. Rank 0 does nothing before rank 1 has.
SCRIPT = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
import hardroute.audit.bundles, hardroute.audit.certify, hardroute.audit.evaluation.ledger
import hardroute.audit.execution.journal, hardroute.models
from hardroute.cli import load
from hardroute.runtime.cli import main
from hardroute.runtime.errors import HardrouteError
from tests.support import bundles
from tests.support.audit_bundles import twin_of

what, rank, here = sys.argv.pop(1), int(os.environ.get("RANK", 0)), Path(sys.argv.pop(1))
seeds = {"bundle": 0, "other": 5}
tiny = {name: bundles.make_bundle(here / f"{name}-{os.getpid()}", seed=seed) for name, seed in seeds.items()}
hardroute.audit.bundles.load_twin = lambda bundle: twin_of(tiny[bundle.root.name])
hardroute.audit.certify.evaluate = partial(hardroute.audit.certify.evaluate, batch_size=5)
hardroute.audit.execution.journal.ROOT = Path("no sources here")
attack, met = hardroute.audit.evaluation.ledger.attack_batch, here / "rank 1 has worked"

def watched(*args):
    print("attacked", file=sys.stderr)
    if rank == 1:
        met.touch()
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "raises":
            raise HardrouteError("planted in rank 1")
    while "RANK" in os.environ and not met.exists():
        time.sleep(0.01)
    return attack(*args)

hardroute.audit.evaluation.ledger.attack_batch = watched
main(load("audit"))
"""


class Launcher:
    """Starts the same audit in one process, under torchrun, or as two processes that nobody watches over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "script.py").write_text(SCRIPT)
        self.arguments = [folder / "bundle", "--data", folder / "set", "--policy", folder / "policy.toml"]
        self.arguments += ["--source", f"other={folder / 'other'}"]
        self.env = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        self.env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def command(self, what: str, out: str, *more: str) -> list[str]:
        (self.folder / "rank 1 has worked").unlink(missing_ok=True)
        script = [self.folder / "script.py", what, self.folder, *self.arguments, "--out", self.folder / out, *more]
        return [str(each) for each in script]

    def alone(self, out: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, *self.command("", out)])

    def torchrun(self, what: str, out: str, *more: str) -> subprocess.CompletedProcess[str]:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        return self._run([*launch, *self.command(what, out, *more)])

    def unwatched(self, what: str, out: str) -> tuple[subprocess.CompletedProcess[str], int]:
        """What rank 0 said, and how rank 1 ended."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, *self.command(what, out)]
        other = subprocess.Popen(command, cwd=ROOT, env=self.env | env | {"RANK": "1"}, stderr=subprocess.DEVNULL)
        try:
            return self._run(command, env | {"RANK": "0"}), other.wait(timeout=100)
        finally:
            other.kill()

    def _run(self, command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        everything = self.env | (env or {})
        return subprocess.run(command, cwd=ROOT, env=everything, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as monkeypatch:
        model = bundle_with_twin(folder / "bundle", monkeypatch)
        bundle_with_twin(folder / "other", monkeypatch, seed=5)
    labelled_set(folder / "set", model, clips=12)
    lax_policy(folder / "policy.toml")
    return Launcher(folder)


@pytest.fixture(scope="module")
def one(launch: Launcher) -> subprocess.CompletedProcess[str]:
    return launch.alone("one")


def errors_in(said: str) -> list[str]:
    return re.findall("^error: .*", said, re.MULTILINE)


def test_two_ranks_find_what_one_process_finds(launch: Launcher, one: subprocess.CompletedProcess[str]) -> None:
    two = launch.torchrun("", "two")
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert (launch.folder / "rank 1 has worked").exists()
    assert two.stderr.count("attacked") == one.stderr.count("attacked") > 6  # no batch twice
    assert report_of(launch.folder / "one") == report_of(launch.folder / "two")
    assert two.stdout.count("PASSED") == 1


def test_a_rank_that_dies_ends_the_run_with_one_line_and_the_next_goes_on(
    launch: Launcher, one: subprocess.CompletedProcess[str]
) -> None:
    said, other = launch.unwatched("dies", "out")
    assert (said.returncode, other) == (3, -signal.SIGKILL), said.stderr
    (error,) = errors_in(said.stderr)
    assert "process 1 of this torchrun has ended" in error and "Traceback" not in said.stderr
    out = launch.folder / "out"
    assert not (out / "report.json").exists()
    kept = len(list(out.rglob("*.npz")))
    rest = launch.alone("out")
    assert rest.returncode == 0, rest.stderr
    assert rest.stderr.count("attacked") == one.stderr.count("attacked") - kept
    assert report_of(out) == report_of(launch.folder / "one")


def test_what_goes_wrong_elsewhere_is_said_once(launch: Launcher) -> None:
    raised = launch.torchrun("raises", "raises")
    assert raised.returncode != 0 and errors_in(raised.stderr) == ["error: planted in rank 1"]
    assert not (launch.folder / "raises" / "report.json").exists()


def test_torchrun_and_workers_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    audited = Audited(tmp_path, monkeypatch, capsys)
    assert audited.run("--workers", "2") == 2 and "torchrun has started the processes already" in audited.stderr
