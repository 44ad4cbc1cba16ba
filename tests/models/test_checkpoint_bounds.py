"""A twin takes no more memory than a small multiple of its weights, whatever its description says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from hardroute.models import ExpertSpec, ModelSpec, build_model, parse_twin, save_twin
from hardroute.runtime.errors import BundleError
from tests.support.peak import peak

TINY = ModelSpec(classes=3, experts=(ExpertSpec(width=2, blocks=(1, 0, 0, 0)),) * 2)
HUGE = ModelSpec(classes=3, experts=(ExpertSpec(width=512),) * 64)
DEEP = ModelSpec(classes=3, experts=(ExpertSpec(width=1, blocks=(50, 50, 50, 50)),) * 64)


@pytest.fixture
def files(tmp_path: Path) -> tuple[bytes, bytes]:
    save_twin(build_model(TINY), TINY, tmp_path)
    return (tmp_path / "twin.json").read_bytes(), (tmp_path / "twin.safetensors").read_bytes()


@pytest.mark.parametrize("spec", [HUGE, DEEP], ids=["wide", "deep"])
def test_a_huge_description_is_refused_before_it_is_built(spec: ModelSpec, tmp_path: Path) -> None:
    save_twin(build_model(TINY), TINY, tmp_path)
    (tmp_path / "twin.json").write_text(spec.model_dump_json())
    taken, said = peak("from hardroute.models import load_twin", "load_twin(sys.argv[1])", str(tmp_path))
    assert "twin.safetensors does not fit the architecture in twin.json" in said
    assert taken < 300


def test_what_fits_comes_back(files: tuple[bytes, bytes]) -> None:
    assert isinstance(parse_twin(*files, "here"), torch.nn.Module)


def test_numbers_of_another_type_do_not_fit(files: tuple[bytes, bytes]) -> None:
    # One byte a number would be four in memory.
    small = {
        name: torch.zeros(value.shape, dtype=torch.uint8) for name, value in build_model(TINY).state_dict().items()
    }
    with pytest.raises(BundleError, match=r"here: twin\.safetensors does not fit"):
        parse_twin(files[0], save(small), "here")


@pytest.mark.parametrize(
    ("config", "weights", "says"),
    [
        (b'{"classes": 3, "classes": 4}', None, "the key 'classes' is there twice"),
        (b" " * (2 << 20), None, "larger than the limit"),
        (b'{"classes": 3, "experts": [{"kind": "none"}]}', None, "unknown expert 'none'"),
        (None, b"", "is cut short"),
        (None, b"\xff" * 100, "is cut short"),
        (None, (2).to_bytes(8, "little") + b"[]", "has no header"),
        (None, (2).to_bytes(8, "little") + b"{}", "does not fit"),
        (None, (2 + 20).to_bytes(8, "little") + b'{"a": {}, "a":    {}}  ', "the key 'a' is there twice"),
    ],
)
def test_hostile_bytes_are_one_line(
    files: tuple[bytes, bytes], config: bytes | None, weights: bytes | None, says: str
) -> None:
    with pytest.raises(BundleError) as raised:
        parse_twin(config or files[0], files[1] if weights is None else weights, "here")
    assert says in str(raised.value) and str(raised.value).startswith("here: ") and len(str(raised.value)) < 300


def test_a_header_that_names_more_than_there_is(files: tuple[bytes, bytes]) -> None:
    config, weights = files
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"] = [10**9]
    changed = json.dumps(header).encode()
    with pytest.raises(BundleError, match="does not fit"):
        parse_twin(config, len(changed).to_bytes(8, "little") + changed + weights[8 + length :], "here")
