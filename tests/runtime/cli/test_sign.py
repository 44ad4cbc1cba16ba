"""`sign`, `verify` and `--trust` as their users see them: exit codes, a fact a line, nothing served that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from hardroute import Engine, Service, Trust
from hardroute.cli import app
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.service import create_app
from tests.support import bundles, signed


def run(*words: str | Path, trust: Path | None = None) -> Result:
    return CliRunner().invoke(
        app, [str(word) for word in words], env={"HARDROUTE_TRUST": str(trust) if trust else None}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`bundle`, not signed; `audit.pem` with the password in `password`; `audit.pub.pem`; `trust.toml`."""
    signed.attach(bundles.make_bundle(tmp_path / "bundle").root)
    signed.write_keys(tmp_path, signed.new_key("p256"), "audit", b"a secret")
    signed.write_keys(tmp_path, signed.new_key("ed25519"), "other")
    (tmp_path / "password").write_text("a secret\n")
    (tmp_path / "trust.toml").write_text('clips = 64\n[[keys]]\nname = "audit"\nfile = "audit.pub.pem"\n')
    return tmp_path


def sign(folder: Path, *options: str) -> Result:
    key, password = folder / "audit.pem", folder / "password"
    return run("sign", folder / "bundle", "--key", key, "--password-file", password, *options)


def test_sign_then_verify(folder: Path) -> None:
    bundle, key = folder / "bundle", folder / "audit.pub.pem"
    before = run("verify", bundle, "--key", key)
    assert before.exit_code == 1 and "ok files: 5, all digests match" in before.stdout
    assert "NO certificate by audit.pub.pem: " in before.stdout and "nobody signed" in before.stdout
    assert sign(folder, "--no-model-sig").exit_code == 0
    after = run("verify", bundle, "--key", key, "--trust", folder / "trust.toml")
    assert after.exit_code == 0, after.stdout
    assert "ok certificate by audit.pub.pem: certified by audit.pub.pem: policy called 'strict'" in after.stdout
    assert "-- model.sig: there is none" in after.stdout and "ok trust" in after.stdout
    others = run("verify", bundle, "--key", folder / "other.pub.pem")
    assert others.exit_code == 1 and "not signed by a key that is trusted" in others.stdout
    (bundle / "router.onnx").write_bytes(b"x")
    broken = run("verify", bundle, "--key", key)
    assert broken.exit_code == 1 and broken.stdout.startswith("NO files: ") and len(broken.stdout.splitlines()) == 1


def test_the_whole_folder(folder: Path) -> None:
    pytest.importorskip("model_signing", reason="comes with the extra `sign`")
    assert sign(folder, "--model-sig").exit_code == 0
    keys = ("--key", folder / "other.pub.pem", "--key", folder / "audit.pub.pem")
    assert (
        f"ok model.sig: of these files, by {folder / 'audit.pub.pem'}" in run("verify", folder / "bundle", *keys).stdout
    )
    assert run("sign", folder / "bundle", "--key", folder / "other.pem").exit_code == 0
    assert run("verify", folder / "bundle", *keys).exit_code == 0
    alone = run("verify", folder / "bundle", *keys[:2])
    assert (
        alone.exit_code == 0 and "-- model.sig: not checked: OpenSSF model signing takes EC keys only" in alone.stdout
    )


def refusal(done: Result) -> str:
    assert isinstance(done.exception, HardrouteError) and done.stdout == ""
    return str(done.exception)


def test_what_cannot_be_judged_or_signed(folder: Path) -> None:
    bundle = folder / "bundle"
    assert "nobody to ask: give --key, --trust or both" in refusal(run("verify", bundle))
    assert "no public key in PEM" in refusal(run("verify", bundle, "--key", folder / "trust.toml"))
    assert "no such bundle folder" in refusal(run("verify", folder / "none", "--key", folder / "audit.pub.pem"))
    assert "has a password; give it" in refusal(run("sign", bundle, "--key", folder / "audit.pem"))
    words = ("sign", bundle, "--key", folder / "other.pem", "--model-sig")
    assert "--model-sig: OpenSSF model signing takes EC keys only" in refusal(run(*words))
    assert not list(bundle.glob("*.intoto.json")) and not list(bundle.glob("*.sig"))


def test_predict_refuses_what_a_trust_refuses(folder: Path) -> None:
    video, path = bundles.write_video(folder / "a.mp4"), folder / "trust.toml"
    words = ("predict", folder / "bundle", video, "--threads", "1")
    assert run(*words).exit_code == 0
    for refused in (run(*words, "--trust", path), run(*words, trust=path)):
        assert "nobody signed its certificate" in refusal(refused)
    sign(folder, "--no-model-sig")
    assert run(*words, "--trust", path).exit_code == run(*words, trust=path).exit_code == 0


def test_the_service_tells_who_certified_it(folder: Path) -> None:
    sign(folder, "--no-model-sig")
    for trust, by in ((None, []), (Trust.load(folder / "trust.toml"), ["audit"])):
        with Engine.load(folder / "bundle", threads=1, trust=trust) as engine:
            client = TestClient(create_app(Service(engine)))
            info = client.get("/v1/info").json()
            assert (info["certified"], info["certified_by"]) == (bool(by), by)
            assert info["standing"].startswith("certified by audit: " if by else "not verified, as no trust was given")
            assert f"{info['bundle']['sha256']}:{info['bundle']['certificate_sha256']}" == engine.bundle.pin
            assert f"\nhardroute_certified {len(by)}.0\n" in client.get("/metrics").text
