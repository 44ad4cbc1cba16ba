"""The twins of an audit's bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardroute.audit import bundles
from hardroute.audit.bundles import load_twins
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.errors import BackendError, BundleError
from tests.support.audit_bundles import bundle_with_twin
from tests.support.audit_models import mixture


def test_twins_come_by_the_names_of_their_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: bundle_with_twin(tmp_path / name, monkeypatch, seed=n) for n, name in enumerate("ab")}
    found = load_twins({name: Bundle.open(tmp_path / name) for name in "ba"})
    assert list(found) == ["b", "a"]
    for name, twin in found.items():
        assert all((twin.state_dict()[key] == value).all() for key, value in known[name].state_dict().items())


def test_a_twin_of_another_shape_than_its_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle_with_twin(tmp_path / "a", monkeypatch)
    monkeypatch.setattr(bundles, "load_twin", lambda folder: mixture(experts=2))
    with pytest.raises(BundleError, match="its twin has 2 experts, its manifest 3; export it again"):
        load_twins({"a": Bundle.open(tmp_path / "a")})


def test_a_device_that_is_not_there_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_with_twin(tmp_path / "a", monkeypatch)
    monkeypatch.setattr(bundles, "load_twin", lambda folder: pytest.fail("loaded"))
    with pytest.raises(BackendError, match=r"^device nonsense: no such device; use cpu, cuda or cuda:N$"):
        load_twins({"a": Bundle.open(tmp_path / "a")}, "nonsense")
