"""One wrong bit in any file of a bundle is refused at load, and the counting command would notice one that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hardroute.runtime.bundle import bundle as bundles
from hardroute.runtime.bundle.sealed_files import write_sealed
from tests.measure.bitflips import app, flip_bits
from tests.support.bundles import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    root = make_bundle(tmp_path / "tiny").root
    write_sealed(root, "certificate.json", b"{}\n")
    return root


def test_every_flip_is_refused_and_names_its_file(bundle: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    flips = list(flip_bits(bundle, 90))
    assert {flip.file for flip in flips} == set(before)
    for flip in flips:
        assert flip.refusal is not None and flip.file in flip.refusal
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def blind_to_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_require_digest", lambda *_: None)


def blind_to_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "read_sealed", lambda folder, name: (folder / name).read_bytes())


@pytest.mark.parametrize("blind", [blind_to_weights, blind_to_manifest])
def test_a_flip_that_nobody_sees_is_counted_and_listed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, blind: Callable[[pytest.MonkeyPatch], None]
) -> None:
    blind(monkeypatch)
    done = CliRunner().invoke(app, [str(bundle), "--flips", "90"])
    assert done.exit_code == 1 and "accepted: " in done.stdout and "90 flips in 9 files" in done.stdout
