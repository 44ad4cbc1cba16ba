"""docs/trust.md is true: a second person's commands check a bundle without hardroute, and its trust file is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hardroute import Engine, Trust
from hardroute.runtime.bundle.signing import sign_folder
from tests.support import bundles, signed
from tests.support.paths import DOCS

PAGE = (DOCS / "trust.md").read_text(encoding="utf-8")
CHECKS = re.findall(r"^```bash\n(.*?)^```", PAGE.partition("## Checking it without")[2], re.DOTALL | re.MULTILINE)
TAKE_APART, DGST, PKEYUTL, DIGESTS, OPENSSF = CHECKS


@pytest.fixture(params=["p256", "ed25519"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What the second person was sent: a bundle and a public key."""
    root = bundles.make_bundle(tmp_path / "BUNDLE").root
    signed.attach(root)
    key = signed.new_key(request.param)
    private, _ = signed.write_keys(tmp_path, key, "audit")
    bundle = signed.sign(root, key)
    if request.param == "p256" and shutil.which("model_signing", path=path()):
        sign_folder(bundle, private)
    private.unlink()
    (tmp_path / "kind").write_text(request.param)
    return tmp_path


def path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def shell(folder: Path, *blocks: str) -> subprocess.CompletedProcess[str]:
    # No PYTHONPATH, and from a folder without it: whatever these commands run, it is not this checkout.
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", "\n".join(blocks)],
        cwd=folder,
        env={"PATH": path(), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def signature_check(folder: Path) -> str:
    return DGST if (folder / "kind").read_text() == "p256" else PKEYUTL


def test_a_second_person_checks_it_with_standard_tools(folder: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    assert "hardroute" not in "".join(CHECKS)
    done = shell(folder, TAKE_APART, signature_check(folder), DIGESTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("https://in-toto.io/attestation/test-result/v0.1 PASSED\n")
    assert re.search("^(Verified OK|Signature Verified Successfully)$", done.stdout, re.MULTILINE)
    assert {"manifest.json: OK", "certificate.json: OK", "router.onnx: OK"} <= set(done.stdout.splitlines())


def test_a_forged_one_fails_the_same_commands(folder: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    other, shown = signed.write_keys(folder, signed.new_key((folder / "kind").read_text()), "other")
    shutil.move(shown, folder / "audit.pub.pem")
    other.unlink()
    assert shell(folder, TAKE_APART, signature_check(folder)).returncode != 0
    certificate = folder / "BUNDLE" / "certificate.json"
    certificate.write_text(certificate.read_text().replace("0.9375", "1.0"))
    done = shell(folder, TAKE_APART, DIGESTS)
    assert done.returncode != 0 and "certificate.json: FAILED" in done.stdout


def test_model_signing_checks_the_whole_folder(folder: Path) -> None:
    if not (folder / "BUNDLE" / "model.sig").exists():
        pytest.skip("no model.sig: another kind of key, or the extra `sign` is missing")
    done = shell(folder, OPENSSF)
    assert done.returncode == 0, done.stderr
    (folder / "BUNDLE" / "more").write_text("x")
    assert shell(folder, OPENSSF).returncode != 0


def test_its_trust_file_and_its_code_work(folder: Path) -> None:
    (toml,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (folder / "trust.toml").write_text(toml)
    found = Trust.load(folder / "trust.toml")
    table = PAGE.partition("| field |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(Trust.model_fields)
    assert found.policies is not None and found.eps_255 == 8
    # The bundle at hand is of other figures; whose it is stays asked for.
    (folder / "trust.toml").write_text("".join(toml.partition("[[keys]]")[1:]))
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    code = code.replace("bundle/", str(folder / "BUNDLE")).replace("trust.toml", str(folder / "trust.toml"))
    names: dict[str, object] = {}
    exec(compile(code, "docs/trust.md", "exec"), names)  # noqa: S102
    engine = names["engine"]
    assert isinstance(engine, Engine) and engine.bundle.vouched is not None
    assert engine.bundle.vouched.signers == ("audit",)
