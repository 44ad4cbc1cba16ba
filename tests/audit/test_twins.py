"""The network of a shipped bundle is at hand by the bundle's name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hardroute import Bundle, load_twin, models
from hardroute.runtime.errors import BundleError


def test_a_twin_by_name_is_that_of_the_shipped_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Bundle.open("motion").root.resolve()
    monkeypatch.chdir(tmp_path)
    named, there = load_twin("motion").state_dict(), models.load_twin(folder).state_dict()
    assert named.keys() == there.keys() and all(torch.equal(named[name], there[name]) for name in there)
    with pytest.raises(BundleError, match="the name of a shipped bundle: motion"):
        load_twin("motoin")
