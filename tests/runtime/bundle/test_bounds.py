"""A bundle of strangers costs no more memory than its sizes allow, and its names are what they look like."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute import Bundle, ClipContract
from hardroute.runtime.bundle import sealed_files
from hardroute.runtime.bundle.manifest import look
from hardroute.runtime.clips.contract import MAX_PIXELS
from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import parse_json
from tests.support.bundles import edit_manifest, make_bundle, reseal
from tests.support.peak import peak


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle").root


def refusal(root: Path) -> str:
    with pytest.raises(BundleError) as raised:
        Bundle.open(root)
    said = str(raised.value)
    assert len(said) < 500
    return said


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["cat", "Cat"], "'cat' and 'Cat' look alike"),
        (["cat", "Ｃａｔ"], "look alike"),
        (["straße", "STRASSE"], "look alike"),
        (["first aid", "firstaid"], "look alike"),
        (["ﬁsh", "fish"], "look alike"),
        (["cafe\N{COMBINING ACUTE ACCENT}", "café"], "look alike"),
        (["cat", "cat"], "a class is named twice"),
        (["cat", "dog "], "blanks that do not show"),
        (["cat", "a  dog"], "blanks that do not show"),
        (["cat", "a\N{NO-BREAK SPACE}dog"], "blanks that do not show"),
        (["cat", "a\tdog"], "blanks that do not show"),
        (["cat", "\N{RIGHT-TO-LEFT OVERRIDE}tac"], "control characters"),
        (["cat", "\N{FIRST STRONG ISOLATE}dog"], "control characters"),
        (["cat", "ca\N{ZERO WIDTH SPACE}t"], "control characters"),
        (["cat", "a\x1b[2Jb"], "control characters"),
        (["cat", " "], "blanks that do not show"),
    ],
)
def test_names_that_deceive_are_refused(root: Path, classes: list[str], says: str) -> None:
    edit_manifest(root, classes=[*classes, "up"])
    assert says in refusal(root)


@given(st.text(max_size=20))
def test_a_look_stays_when_it_is_looked_at_again(name: str) -> None:
    assert look(look(name)) == look(name) == look(name.upper()) or "ß" in name or not name.isascii()


@pytest.mark.parametrize("name", ["manifest.json", "certificate.json"])
def test_a_key_that_stands_twice_is_refused(root: Path, name: str) -> None:
    if name == "manifest.json":
        text = (root / name).read_text()
        reseal(root, text.replace('"precision"', '"name": "other", "precision"', 1))
        assert "manifest.json: Invalid JSON: the key 'name' is there twice" in refusal(root)
    else:
        (root / name).write_text('{"schema_version": 2, "a": {"b": 1, "b": 2}}')
        data = (root / name).read_bytes()
        sealed_files.write_sealed(root, name, data)
        with pytest.raises(BundleError, match=r"certificate.json: Invalid JSON: the key 'b' is there twice"):
            Bundle.open(root).certificate()


@pytest.mark.parametrize(
    "data", [b'{"a": 1, "a": 1}', b"[NaN]", b"[-Infinity]", b"[" * 100_000, b"\xff", b"", b'{"a": {"b": 0, "b": 0}}']
)
def test_json_that_two_readers_may_take_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(data)


def test_a_clip_has_a_largest_size() -> None:
    assert ClipContract(frames=64, height=512, width=512).frames * 512 * 512 == MAX_PIXELS
    with pytest.raises(ValueError, match="frames x height x width"):
        ClipContract(frames=65, height=512, width=512)


def test_a_manifest_cannot_ask_for_a_larger_one(root: Path) -> None:
    edit_manifest(root, contract={"frames": 256, "height": 1024, "width": 1024})
    taken, said = peak(
        "from hardroute import Bundle, Engine; import onnxruntime", "Engine.load(sys.argv[1])", str(root)
    )
    assert "frames x height x width is 268435456, more than the limit" in said and taken < 100


def test_probes_have_a_largest_size(root: Path) -> None:
    # A megabyte of zeros, packed, for 1.6 GB of frames that the contract allows.
    contract = ClipContract(frames=8, height=256, width=256)
    edit_manifest(root, contract=contract.model_dump())
    with (
        zipfile.ZipFile(root / "probes.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("frames.npy", "w") as file,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (1024, 8, 256, 256, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(1024):
            file.write(bytes(8 * 256 * 256 * 3))
    assert (root / "probes.npz").stat().st_size < 4 * 2**20
    before = "from pathlib import Path; from hardroute import ClipContract; from hardroute.runtime.bundle import Probes"
    action = "Probes.from_bytes(Path(sys.argv[1]).read_bytes(), ClipContract(frames=8, height=256, width=256), 3, 3)"
    taken, said = peak(before, action, str(root / "probes.npz"))
    assert said.startswith("BundleError: probes: not a readable npz (frames and what is before it take more than")
    assert taken < 50


def test_files_have_a_number_and_a_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bundle.open(root)
    with open(root / "more", "wb") as file:
        file.truncate(sealed_files.MAX_TOTAL_BYTES)  # sparse
    assert "take more than the limit of" in refusal(root)
    (root / "more").unlink()
    for n in range(sealed_files.MAX_FILES):
        (root / f"more_{n}").touch()
    assert "more than 512 files" in refusal(root)
