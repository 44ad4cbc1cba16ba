"""Envelopes and statements, against other people's readers: openssl, model_signing, in_toto_attestation."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hardroute import Bundle
from hardroute.runtime.bundle import PublicKey
from hardroute.runtime.bundle.signature import Envelope, load_private_key, pre_authentication
from hardroute.runtime.bundle.signing import sign_certificate, sign_folder, verify_folder
from hardroute.runtime.errors import BundleError, TrustError
from hardroute.runtime.files import parse_json
from tests.support import bundles, signed

PAE = b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = bundles.make_bundle(tmp_path_factory.mktemp("signature") / "bundle").root
    signed.attach(root)
    return root


@pytest.fixture
def bundle(certified: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(certified, tmp_path / "bundle"))


def test_what_is_signed_is_the_encoding_of_dsse() -> None:
    assert pre_authentication("application/vnd.in-toto+json", b"hello") == PAE
    # The example of the specification.
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("kind", signed.KINDS)
def test_openssl_agrees(kind: str, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = signed.new_key(kind)
    _, shown = signed.write_keys(tmp_path, key, "audit")
    envelope = Envelope.parse(Envelope.sign(b"hello", key).to_bytes())
    (tmp_path / "signed").write_bytes(PAE)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope.signatures[0].sig))
    digest = {"p256": "-sha256", "p384": "-sha384", "p521": "-sha512"}.get(kind)
    command: list[str | Path] = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        shown,
        "-rawin",
        "-in",
        "signed",
        "-sigfile",
    ]
    if digest:
        command = ["openssl", "dgst", digest, "-verify", shown, "-signature"]
    command += ["signature"] if not digest else ["signature", "signed"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "signed").write_bytes(PAE + b"!")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("kind", signed.KINDS)
@given(content=st.binary(max_size=64), place=st.integers(min_value=0))
def test_a_signature_holds_for_its_bytes_and_its_key_alone(kind: str, content: bytes, place: int) -> None:
    key = KEYS[kind]
    envelope = Envelope.sign(content, key)
    mine, others = signed.public(key), [signed.public(other, name) for name, other in KEYS.items() if name != kind]
    assert envelope.signers([*others, mine]) == (mine,) and envelope.content == content
    made = bytearray(base64.b64decode(envelope.signatures[0].sig))
    made[place % len(made)] ^= 1
    one = envelope.signatures[0].model_copy(update={"sig": base64.b64encode(bytes(made)).decode()})
    assert envelope.model_copy(update={"signatures": [one]}).signers([mine]) == ()
    longer = base64.b64encode(content + b"!").decode()
    assert envelope.model_copy(update={"payload": longer}).signers([mine]) == ()


KEYS = {kind: signed.new_key(kind) for kind in signed.KINDS}


def test_in_toto_reads_the_statement(bundle: Bundle) -> None:
    """By the library of the format's authors: a valid statement with a valid test-result in it."""
    pytest.importorskip("in_toto_attestation", reason="comes with the extra `sign`")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement, statement_pb2

    content = Envelope.parse(sign_certificate(bundle, KEYS["p256"]).read_bytes()).content
    found = json_format.Parse(content, statement_pb2.Statement())
    statement.Statement.copy_from_pb(found).validate()
    assert found.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
    result = json_format.ParseDict(json_format.MessageToDict(found.predicate), test_result_pb2.TestResult())
    assert result.result == "PASSED" and list(result.passed_tests) == ["clean accuracy"]
    assert {each.name: each.digest["sha256"] for each in found.subject} == {
        "manifest.json": bundle.digest,
        "certificate.json": bundle.certificate_digest,
    }
    assert signed.POLICY in {each.digest["sha256"] for each in result.configuration}


@pytest.mark.parametrize("kind, password", [("p256", None), ("p384", b"a secret"), ("p521", None)])
def test_model_signing_agrees(kind: str, password: bytes | None, bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="comes with the extra `sign`")
    private, shown = signed.write_keys(tmp_path, KEYS[kind], "audit", password)
    sign_certificate(bundle, load_private_key(private, password))
    signature = sign_folder(bundle, private, password)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(bundle.root)]
    command += ["--signature", str(signature), "--public_key", str(shown)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    # Another signature comes to the certificate later, and this one stays good.
    sign_certificate(bundle, KEYS["ed25519"])
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert verify_folder(bundle, [shown]) == shown
    (bundle.root / "probes.npz").write_bytes(b"x")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    with pytest.raises(TrustError, match=r"does not hold.*probes\.npz"):
        verify_folder(bundle, [shown])
    for data, says in ((b" " * (2**20 + 1), "larger than the limit"), (b"{}", "does not hold"), (b"[" * 9999, "hold")):
        signature.write_bytes(data)
        with pytest.raises(BundleError, match=says):
            verify_folder(bundle, [shown])


def test_each_key_signs_once_and_no_other_statement(bundle: Bundle) -> None:
    first, second = KEYS["p256"], KEYS["ed25519"]
    for key in (first, second, first):
        path = sign_certificate(bundle, key)
    envelope = Envelope.parse(path.read_bytes())
    assert len(envelope.signatures) == 2
    assert len(envelope.signers([signed.public(first, "a"), signed.public(second, "b")])) == 2
    path.write_bytes(Envelope.sign(b"another", second).to_bytes())
    with pytest.raises(TrustError, match="of another statement; remove it and sign again"):
        sign_certificate(bundle, first)


def test_what_failed_is_not_signed(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path / "bundle").root
    with pytest.raises(TrustError, match=r"no certificate\.json in it to sign"):
        sign_certificate(Bundle.open(root), KEYS["p256"])
    failed = signed.attach(root, lambda content: content["checks"][0].update(passed=False))
    with pytest.raises(TrustError, match="FAILED, not PASSED; what failed is not signed"):
        sign_certificate(failed, KEYS["p256"])
    assert failed.signatures == ()


def test_a_new_certificate_takes_the_old_signatures_away(bundle: Bundle) -> None:
    sign_certificate(bundle, KEYS["p256"])
    assert bundle.signatures == ("certificate.intoto.json",)
    bundle.attach((bundle.root / "certificate.json").read_bytes())
    assert bundle.signatures == ()
    sign_certificate(bundle, KEYS["p256"])
    bundle.detach()
    assert bundle.signatures == ()


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "no signed envelope"),
        (b"\xff", "no signed envelope"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "valid dictionary"),
        (b'{"payload": "", "payload": "", "payloadType": "", "signatures": []}', "'payload' is there twice"),
        (b'{"payload": "*", "payloadType": "a", "signatures": []}', "no signed envelope"),
        (b'{"payload": "", "payloadType": "a", "signatures": []}', "signed as 'a', not as"),
        (b'{"payload": 1, "payloadType": "a", "signatures": []}', "payload: "),
        (b'{"payload": "", "payloadType": "a", "signatures": [{"sig": NaN}]}', "NaN is not finite"),
        (b'{"payload": "", "payloadType": "a", "signatures": [{"sig": "*"}]}', "no signed envelope"),
        (json.dumps({"payload": "", "payloadType": "a", "signatures": [{"sig": ""}] * 17}).encode(), "signatures: "),
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(TrustError) as caught:
        Envelope.parse(data)
    assert says in str(caught.value) and len(str(caught.value)) < 300


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_parse_json_reads_what_json_reads(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


def test_files_that_hold_no_key(tmp_path: Path) -> None:
    private, shown = signed.write_keys(tmp_path, KEYS["p256"], "audit", b"secret")
    assert PublicKey.load(shown) == PublicKey("audit.pub.pem", KEYS["p256"].public_key())
    strange = rsa.generate_private_key(65537, 2048)
    unusual = ec.generate_private_key(ec.SECP256K1())
    for name, other in (("rsa", strange), ("k1", unusual)):
        (tmp_path / f"{name}.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pem = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub.pem").write_bytes(pem)
    (tmp_path / "text.pem").write_text("hello")
    (tmp_path / "huge.pem").write_bytes(b"-" * 2**17)
    for name, says in (
        ("text.pem", "no public key in PEM; give an EC key"),
        ("huge.pem", "larger than any key"),
        ("none.pem", "No such file"),
        (".", "cannot be read"),
        ("rsa.pub.pem", "no public key in PEM; give an EC key"),
        ("k1.pub.pem", "no public key in PEM; give an EC key"),
        (private.name, "a private key, which belongs"),
    ):
        with pytest.raises(TrustError, match=says):
            PublicKey.load(tmp_path / name)
    for name, password, says in (
        ("text.pem", None, "no private key in PEM"),
        ("rsa.pem", None, "a key of another kind"),
        ("k1.pem", None, "a key of another kind"),
        ("rsa.pem", b"x", "has no password, and one was given"),
        (private.name, None, "has a password; give it"),
        (private.name, b"wrong", "or another password"),
    ):
        with pytest.raises(TrustError, match=says):
            load_private_key(tmp_path / name, password)
