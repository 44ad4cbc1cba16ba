"""Published weights as a start."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hardroute.models import build_expert
from hardroute.models.published import start_from
from hardroute.runtime.errors import DataError

BLOCKS = (1, 1, 0, 0)


def expert(kind: str = "r3d18", classes: int = 5, width: int = 4) -> nn.Module:
    return build_expert(kind, classes, width, BLOCKS).eval()


def saved(network: nn.Module, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_an_expert_then_computes_what_the_source_computes(name: str, tmp_path: Path) -> None:
    source, target, x = expert(), expert(), torch.rand(2, 3, 4, 16, 16)
    assert not torch.equal(source(x), target(x))
    start_from([target], [saved(source, tmp_path / name)])
    assert torch.equal(source(x), target(x))


def test_a_classifier_of_another_size_stays_fresh(tmp_path: Path) -> None:
    source, target = expert(classes=9), expert(classes=5)
    fresh = target.get_parameter("fc.weight").clone()
    start_from([target], [saved(source, tmp_path / "w.pth")])
    assert torch.equal(target.get_parameter("fc.weight"), fresh)
    assert torch.equal(target.get_parameter("stem.0.weight"), source.get_parameter("stem.0.weight"))


def test_each_expert_takes_the_file_of_its_kind(tmp_path: Path) -> None:
    sources = {kind: expert(kind) for kind in ("r3d18", "tsm")}
    files = [saved(network, tmp_path / f"{kind}.pth") for kind, network in sources.items()]
    targets = {"tsm": expert("tsm"), "r3d18": expert("r3d18")}
    start_from(list(targets.values()), files)
    for kind, target in targets.items():
        assert torch.equal(target.get_parameter("stem.0.weight"), sources[kind].get_parameter("stem.0.weight"))


def test_a_file_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"w\.pth: fits none of the experts"):
        start_from([expert()], [saved(expert(width=8), tmp_path / "w.pth")])


def test_an_expert_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expert 1"):
        start_from([expert(), expert("tsm")], [saved(expert(), tmp_path / "w.pth")])


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "code", "number"])
def test_anything_else_is_one_clear_line(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "text":
        path.write_text("weights")
    if damage == "code":
        path.write_bytes(pickle.dumps(Harmful()))
    if damage == "number":
        torch.save({"epoch": 3}, path)
    with pytest.raises(DataError, match=r"w\.pth: "):
        start_from([expert()], [str(path)])
    assert not (tmp_path / "ran").exists()
