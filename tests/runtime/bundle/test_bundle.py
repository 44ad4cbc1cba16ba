"""A bundle is what was sealed, or it is refused with a line that says what is wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardroute import Bundle, Engine
from hardroute.runtime.bundle import Probes, write_manifest
from hardroute.runtime.bundle.sealed_files import write_sealed
from hardroute.runtime.errors import BundleError
from tests.support.bundles import (
    CONTRACT,
    TinyBundle,
    digest_of,
    edit_manifest,
    make_bundle,
    random_frames,
    replace_file,
    reseal,
)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    return make_bundle(tmp_path / "bundle")


def refusal(root: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(root).probes()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line


def manifest_of(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((root / "manifest.json").read_text())
    return loaded


def test_an_untouched_bundle_opens(tiny: TinyBundle) -> None:
    bundle = Bundle.open(str(tiny.root))
    assert bundle.manifest.classes == ("left", "right", "up")
    assert bundle.manifest.contract == CONTRACT
    assert bundle.digest == digest_of(tiny.root)
    assert bundle.read("router.onnx") == bundle.path("router.onnx").read_bytes()
    frames = random_frames(8, seed=1)
    probes = bundle.probes()
    np.testing.assert_array_equal(probes.frames, frames)
    np.testing.assert_array_equal(probes.routes, tiny.routes(frames))


@pytest.mark.parametrize("name", ["router.onnx", "expert_0.onnx", "expert_1.onnx", "expert_2.onnx", "probes.npz"])
def test_one_flipped_bit_anywhere_is_refused(tiny: TinyBundle, name: str) -> None:
    original = (tiny.root / name).read_bytes()
    for position in (0, len(original) // 2, len(original) - 1):
        changed = bytearray(original)
        changed[position] ^= 1
        (tiny.root / name).write_bytes(changed)
        assert f"{name} was changed" in refusal(tiny.root)


def test_a_changed_manifest_is_another_bundle(tiny: TinyBundle) -> None:
    before = Bundle.open(tiny.root).digest
    edit_manifest(tiny.root, name="other")
    assert Bundle.open(tiny.root).digest != before


def test_an_opened_bundle_knows_when_another_lies_in_its_place(tiny: TinyBundle) -> None:
    bundle = Bundle.open(tiny.root)
    assert bundle.is_current()
    edit_manifest(tiny.root, name="other")
    assert not bundle.is_current()
    (tiny.root / "manifest.json").unlink()
    assert not bundle.is_current()


def test_a_file_swapped_after_opening_is_not_read(tiny: TinyBundle) -> None:
    bundle = Bundle.open(tiny.root)
    (tiny.root / "router.onnx").write_bytes((tiny.root / "expert_0.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"router\.onnx was changed"):
        bundle.read("router.onnx")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "\\\\host\\x",
        "",
        ".hidden",
        "x\n",
        "x\x00",
        "\u00e4.onnx",
    ],
)
def test_only_plain_names_are_followed(tiny: TinyBundle, name: str) -> None:
    # The name is refused for what it is: the file would exist, and its digest is in the manifest.
    edit_manifest(tiny.root, router=name)
    assert "not a plain file name" in refusal(tiny.root)
    files = {**manifest_of(tiny.root)["files"], name: "0" * 64}
    edit_manifest(tiny.root, router="router.onnx", files=files)
    assert "not a plain file name" in refusal(tiny.root)


def test_a_symlink_is_refused_wherever_it_points(tiny: TinyBundle, tmp_path: Path) -> None:
    (tiny.root / "router.onnx").rename(tmp_path / "elsewhere.onnx")
    (tiny.root / "router.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    assert "router.onnx is a symbolic link" in refusal(tiny.root)


def test_a_symlinked_manifest_is_refused(tiny: TinyBundle, tmp_path: Path) -> None:
    (tiny.root / "manifest.json").rename(tmp_path / "manifest.json")
    (tiny.root / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert "manifest.json is a symbolic link" in refusal(tiny.root)


def test_a_named_pipe_is_refused_and_not_waited_for(tiny: TinyBundle) -> None:
    (tiny.root / "router.onnx").unlink()
    os.mkfifo(tiny.root / "router.onnx")
    assert "router.onnx is not a regular file" in refusal(tiny.root)


def test_a_missing_file_is_named(tiny: TinyBundle) -> None:
    (tiny.root / "expert_1.onnx").unlink()
    assert "expert_1.onnx is missing" in refusal(tiny.root)


def test_an_unlisted_file_is_named_but_a_sealed_certificate_may_be_added(tiny: TinyBundle) -> None:
    write_sealed(tiny.root, "certificate.json", b"{}")
    Bundle.open(tiny.root)
    (tiny.root / "weights.bin").write_bytes(b"x")
    assert "weights.bin is not in the manifest" in refusal(tiny.root)


@pytest.mark.parametrize("name", ["manifest", "certificate"])
def test_a_file_and_its_seal_stand_and_fall_together(tiny: TinyBundle, name: str) -> None:
    write_sealed(tiny.root, "certificate.json", b'{"bundle": "tiny"}\n')
    document, seal = tiny.root / f"{name}.json", tiny.root / f"{name}.sha256"
    kept = {path: path.read_bytes() for path in (document, seal)}
    for path, whole in kept.items():
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            assert f"{name}.json or its seal {name}.sha256 was changed" in refusal(tiny.root)
        path.write_bytes(whole)
    seal.unlink()
    assert f"run `sha256sum {name}.json > {name}.sha256`" in refusal(tiny.root)
    done = subprocess.run(["sha256sum", f"{name}.json"], cwd=tiny.root, capture_output=True, check=True)
    seal.write_bytes(done.stdout)
    Bundle.open(tiny.root)
    document.unlink()
    assert f"{name}.json" in refusal(tiny.root)


def test_a_pinned_digest_tells_another_whole_bundle(tiny: TinyBundle) -> None:
    digest = digest_of(tiny.root)
    assert Bundle.open(tiny.root, digest.upper()).digest == digest
    edit_manifest(tiny.root, classes=["left", "right", "down"])
    Bundle.open(tiny.root)
    with pytest.raises(BundleError, match="not the pinned one"):
        Bundle.open(tiny.root, digest)
    for bundle in (tiny.root, Bundle.open(tiny.root)):
        Engine.load(bundle, digest=digest_of(tiny.root)).close()
        with pytest.raises(BundleError, match="not the pinned one"):
            Engine.load(bundle, digest=digest)
    for short in ("", digest[:12], digest + "0", "x" * 64):
        with pytest.raises(BundleError, match="all 64 hex digits"):
            Bundle.open(tiny.root, short)


def test_a_file_above_the_limit_is_refused(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardroute.runtime.bundle.sealed_files.MAX_SEALED_BYTES", 100)
    assert "larger than the limit of 100 bytes" in refusal(tiny.root)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 2}, "schema version 2, this runtime reads 1"),
        ({"schema_version": "1"}, "schema version '1'"),
        ({"surprise": 1}, "surprise"),
        ({"classes": ["left", "left", "up"]}, "named twice"),
        ({"classes": ["left", "up\u001b[31m"]}, "control characters"),
        ({"classes": ["left"]}, "classes"),
        ({"experts": []}, "experts"),
        ({"router": "expert_0.onnx"}, "named for two purposes"),
        ({"single": "moe.onnx"}, "no digest for moe.onnx"),
        ({"tolerance": float("nan")}, "is not finite"),
        ({"tolerance": -1}, "tolerance"),
        ({"contract": {"frames": 10**9}}, "contract.frames"),
        ({"contract": {"crop": "none"}}, "contract.crop"),
        ({"files": {}}, "no digest for router.onnx"),
    ],
)
def test_a_manifest_outside_the_schema_is_refused(tiny: TinyBundle, changes: dict[str, Any], says: str) -> None:
    edit_manifest(tiny.root, **changes)
    assert says in refusal(tiny.root)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 10_000, '{"schema_version": 1}'])
def test_a_manifest_that_is_no_manifest_is_refused(tiny: TinyBundle, text: str) -> None:
    reseal(tiny.root, text)
    assert "manifest.json" in refusal(tiny.root)


def test_a_folder_without_manifest_and_no_folder_at_all(tmp_path: Path) -> None:
    assert "no manifest.json" in refusal(tmp_path)
    assert "no such bundle folder" in refusal(tmp_path / "absent")


def test_fewer_experts_than_probes_know_is_refused(tiny: TinyBundle) -> None:
    manifest = manifest_of(tiny.root)
    (tiny.root / "expert_2.onnx").unlink()
    files = {name: digest for name, digest in manifest["files"].items() if name != "expert_2.onnx"}
    edit_manifest(tiny.root, experts=manifest["experts"][:2], files=files)
    assert "router_logits is float32 (8, 3), expected float32 (1..1024, 2)" in refusal(tiny.root)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def probe_arrays(**changes: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "frames": random_frames(2),
        "router_logits": np.zeros((2, 3), np.float32),
        "routes": np.zeros(2, np.int64),
        "logits": np.zeros((2, 3), np.float32),
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"routes": None}, "routes.npy"),
        ({"routes": np.array([0, 3])}, "not one of the 3 experts"),
        ({"routes": np.array([0, -1])}, "not one of the 3 experts"),
        ({"routes": np.zeros(3, np.int64)}, "different numbers of clips"),
        ({"logits": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"logits": np.zeros((2, 3))}, "logits is float64"),
        ({"logits": np.array([None, {}], dtype=object)}, "logits is object"),
        ({"frames": random_frames(2)[:, :3]}, "frames is uint8 (2, 3, 8, 8, 3)"),
        ({"frames": random_frames(0)}, "frames is uint8 (0, 4, 8, 8, 3)"),
    ],
)
def test_probes_of_another_shape_or_type_are_refused(tiny: TinyBundle, changes: dict[str, Any], says: str) -> None:
    replace_file(tiny.root, "probes.npz", npz(**probe_arrays(**changes)))
    assert says in refusal(tiny.root)


def inflated(data: bytes) -> bytes:
    """The npz with a `frames` header that promises 900 clips where the archive holds 2."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for entry in source.infolist():
            content = source.read(entry)
            archive.writestr(entry, content.replace(b"(2, 4, 8, 8, 3), }  ", b"(900, 4, 8, 8, 3), }"))
    return target.getvalue()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "not a readable npz"),
        (lambda data: data[:-30], "not a readable npz"),
        (lambda data: b"PK" * 50, "not a readable npz"),
        (inflated, "frames is cut short"),
    ],
)
def test_probes_that_are_no_archive_or_lie_about_their_size(
    tiny: TinyBundle, spoil: Callable[[bytes], bytes], says: str
) -> None:
    replace_file(tiny.root, "probes.npz", spoil(npz(**probe_arrays())))
    assert says in refusal(tiny.root)


def test_write_manifest_refuses_and_leaves_nothing_half_written(tiny: TinyBundle, tmp_path: Path) -> None:
    before = (tiny.root / "manifest.json").read_bytes()
    fields = {k: v for k, v in manifest_of(tiny.root).items() if k not in ("files", "schema_version")}
    with pytest.raises(BundleError, match=r"no digest for gone\.onnx"):
        write_manifest(tiny.root, {**fields, "router": "gone.onnx"})
    assert (tiny.root / "manifest.json").read_bytes() == before
    assert set(os.listdir(tiny.root)) == {*manifest_of(tiny.root)["files"], "manifest.json", "manifest.sha256"}
    assert write_manifest(tiny.root, fields).digest == Bundle.open(tiny.root).digest


def test_probes_survive_saving(tmp_path: Path) -> None:
    probes = Probes(**probe_arrays(router_logits=np.ones((2, 3))))
    probes.save(tmp_path / "probes.npz")
    back = Probes.from_bytes((tmp_path / "probes.npz").read_bytes(), CONTRACT, experts=3, classes=3)
    assert back.router_logits.dtype == np.float32 and len(back) == 2
    np.testing.assert_array_equal(back.frames, probes.frames)
