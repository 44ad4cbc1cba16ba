"""What every test stands on: repeatable randomness, no network, and the real video where it is at hand."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Before torch loads: its spinning threads slow tests down many times on cores shared with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.support.paths import ROOT

LOOPBACK = ("127.0.0.1", "::1", "localhost")

# The same examples on every machine, and no deadline: how long a test took is never what it asserts.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- libraries under test may still use the legacy generator
    # Only if something imported it already: the tests of `runtime` must be able to run without torch.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _repeatable_module() -> None:
    # What a module's own fixtures draw must not depend on which modules ran before.
    _seed()


@pytest.fixture(autouse=True)
def _repeatable(_repeatable_module: None) -> None:
    _seed()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anything but this machine fails the test that tries it."""

    def guard(connect: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
                raise AssertionError(f"a test tried to reach {address}: tests must not use the network")
            return connect(self, address)

        return guarded

    monkeypatch.setattr(socket.socket, "connect", guard(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real and hostile video, kept outside the repository; the test skips where it is absent."""
    folder = Path(os.environ.get("HARDROUTE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real video not found at {folder} (set HARDROUTE_SHARED_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random weights for the classes of `motion`, for tests that need no right answers."""
    # Here, so that the tests of `runtime` can be run where there is no torch.
    import torch

    from hardroute.models import build_model
    from hardroute.runtime.datasets import load_clips, open_set
    from hardroute.training.export.bundle import write_bundle
    from hardroute.training.run import RunRecord
    from hardroute.training.settings import FitSettings

    settings = FitSettings(data="motion:train=0,val=0,test=1", experts=4, width=4, router_width=2)
    clip_set = open_set(settings.data)
    record = RunRecord(settings=settings, classes=clip_set.classes, tools={})
    torch.manual_seed(0)
    model = build_model(record.spec).eval()
    root = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(model, record, load_clips(clip_set, settings.contract), root, training={})
    return root
