"""The network of a shipped bundle is at hand by the bundle's name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from hardroute import Bundle, load_twin, models
from hardroute.audit.bundles import load_twins
from hardroute.runtime.errors import BundleError
from tests.support.bundles import make_bundle


def test_a_twin_by_name_is_that_of_the_shipped_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Bundle.open("motion").root.resolve()
    monkeypatch.chdir(tmp_path)
    named, there = load_twin("motion").state_dict(), models.load_twin(folder).state_dict()
    assert named.keys() == there.keys() and all(torch.equal(named[name], there[name]) for name in there)
    with pytest.raises(BundleError, match="the name of a shipped bundle: motion"):
        load_twin("motoin")


def test_a_twin_that_was_swapped_after_the_check_is_refused(tmp_path: Path) -> None:
    root = shutil.copytree(Bundle.open("motion").root, tmp_path / "bundle")
    bundle = Bundle.open(root)
    expected = load_twin(bundle).state_dict()
    zeros = {name: torch.zeros_like(value) for name, value in expected.items()}
    (root / "twin.safetensors").write_bytes(save(zeros))
    for load in (lambda: load_twin(bundle), lambda: load_twins({"it": bundle})):
        with pytest.raises(BundleError, match=r"twin\.safetensors was changed"):
            load()
    with pytest.raises(BundleError, match=r"twin\.safetensors was changed"):
        load_twin(root)


def test_a_bundle_without_a_twin_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="it has no PyTorch twin to attack"):
        load_twin(make_bundle(tmp_path / "bundle").root)
