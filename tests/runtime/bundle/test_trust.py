"""Forgeries and stale bundles: each is refused under a trust with its line, and the genuine one passes."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardroute import Bundle, Engine, Trust
from hardroute.runtime.bundle.sealed_files import write_sealed
from hardroute.runtime.bundle.signature import PAYLOAD_TYPE, Envelope, pre_authentication
from hardroute.runtime.bundle.signing import sign_certificate
from hardroute.runtime.bundle.statement import Statement
from hardroute.runtime.errors import BundleError, SettingsError, TrustError
from hardroute.runtime.watch import Watch
from tests.support import bundles, signed

KEY, STRANGER, SECOND = signed.new_key("p256"), signed.new_key("p256"), signed.new_key("ed25519")
DEMANDS: dict[str, Any] = {
    "policies": (signed.POLICY,),
    "clean_accuracy": 0.9,
    "robust_accuracy": 0.7,
    "eps_255": 8.0,
    "clips": 64,
    "not_before": date(2026, 1, 1),
    "max_age_days": 36_500,
}
ENVELOPE = "certificate.intoto.json"


def trust(**demands: Any) -> Trust:
    return Trust(**{"keys": (signed.public(KEY), signed.public(SECOND, "second")), **DEMANDS, **demands})


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = bundles.make_bundle(tmp_path_factory.mktemp("trust") / "bundle").root
    signed.attach(root)
    signed.sign(root, KEY)
    return root


@pytest.fixture
def root(genuine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(genuine, tmp_path / "bundle")


def certificate(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "certificate.json").read_bytes())
    return content


def reseal(root: Path, content: dict[str, Any]) -> None:
    write_sealed(root, "certificate.json", json.dumps(content).encode())


def envelope(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / ENVELOPE).read_bytes())
    return content


def put(root: Path, content: object) -> None:
    (root / ENVELOPE).write_text(json.dumps(content))


def signed_again(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A genuine audit with another result, signed by the genuine key."""
    content = certificate(root)
    change(content)
    reseal(root, content)
    (root / ENVELOPE).unlink()
    sign_certificate(Bundle.open(root), KEY)


def signed_statement(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another statement, by the genuine key: it was tricked, or meant something else."""
    content = json.loads(base64.b64decode(envelope(root)["payload"]))
    change(content)
    (root / ENVELOPE).write_bytes(Envelope.sign(json.dumps(content).encode(), KEY).to_bytes())


# --- what a forger does ---


def certificate_edited(root: Path) -> None:
    content = certificate(root)
    content["robust_accuracy"][1].update(share=1.0, low=1.0, high=1.0, eps_255=255)
    reseal(root, content)


def baseline_swapped(root: Path) -> None:
    content = certificate(root)
    content["baseline"]["margins"] = [0.0] * 64
    reseal(root, content)


def statement_edited(root: Path) -> None:
    certificate_edited(root)
    content = envelope(root)
    statement = json.loads(base64.b64decode(content["payload"]))
    statement["subject"][1]["digest"]["sha256"] = Bundle.open(root).certificate_digest
    put(root, {**content, "payload": base64.b64encode(json.dumps(statement).encode()).decode()})


def statement_of_another_bundle(root: Path) -> None:
    other = bundles.make_bundle(root.parent / "other", seed=1).root
    signed.attach(other)
    signed.sign(other, KEY)
    shutil.copy(other / ENVELOPE, root / ENVELOPE)


def files_of_another_bundle(root: Path) -> None:
    bundles.edit_manifest(root, tolerance=1.0)
    content = certificate(root)
    content["bundle"]["digest"] = Bundle.open(root).digest
    reseal(root, content)


def key_of_a_stranger(root: Path) -> None:
    (root / ENVELOPE).unlink()
    signed.sign(root, STRANGER)


def key_of_a_stranger_with_the_genuine_keyid(root: Path) -> None:
    genuine = envelope(root)["signatures"][0]["keyid"]
    key_of_a_stranger(root)
    content = envelope(root)
    content["signatures"][0]["keyid"] = genuine
    put(root, content)


def no_signature(root: Path) -> None:
    put(root, {**envelope(root), "signatures": []})


def signature_broken(root: Path) -> None:
    content = envelope(root)
    content["signatures"][0]["sig"] = base64.b64encode(b"\x30" * 70).decode()
    put(root, content)


def other_payload_type(root: Path) -> None:
    """A signature that the genuine key gave to the same bytes under another name."""
    content = base64.b64decode(envelope(root)["payload"])
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    assert isinstance(KEY, ec.EllipticCurvePrivateKey)
    made = KEY.sign(pre_authentication("text/plain", content), ec.ECDSA(hashes.SHA256()))
    put(root, {**envelope(root), "payloadType": "text/plain", "signatures": [{"sig": base64.b64encode(made).decode()}]})


def bare_signature(root: Path) -> None:
    """Over the payload alone, as a tool would sign it that knows nothing of envelopes."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    assert isinstance(KEY, ec.EllipticCurvePrivateKey)
    made = KEY.sign(base64.b64decode(envelope(root)["payload"]), ec.ECDSA(hashes.SHA256()))
    put(root, {**envelope(root), "signatures": [{"sig": base64.b64encode(made).decode()}]})


def signature_removed(root: Path) -> None:
    (root / ENVELOPE).unlink()


def certificate_removed(root: Path) -> None:
    for name in ("certificate.json", "certificate.sha256"):
        (root / name).unlink()


def seal_removed(root: Path) -> None:
    (root / "certificate.sha256").unlink()


def extra_file(root: Path) -> None:
    (root / "certificate.json.bak").write_bytes(b"")


def envelope_huge(root: Path) -> None:
    (root / ENVELOPE).write_bytes(b" " * 2**20 + (root / ENVELOPE).read_bytes())


def envelope_a_link(root: Path) -> None:
    (root / ENVELOPE).rename(root.parent / "elsewhere")
    (root / ENVELOPE).symlink_to(root.parent / "elsewhere")


def envelope_with_a_key_twice(root: Path) -> None:
    text = (root / ENVELOPE).read_text()
    (root / ENVELOPE).write_text(text.replace('"payload"', '"payload": "", "payload"', 1))


def statement_with_a_key_twice(root: Path) -> None:
    content = base64.b64decode(envelope(root)["payload"]).replace(b'"subject":', b'"subject":[],"subject":', 1)
    (root / ENVELOPE).write_bytes(Envelope.sign(content, KEY).to_bytes())


def many_signatures(root: Path) -> None:
    content = envelope(root)
    put(root, {**content, "signatures": content["signatures"] * 17})


FORGERIES = [
    (certificate_edited, "about another certificate.json"),
    (baseline_swapped, "about another certificate.json"),
    (statement_edited, "not signed by a key that is trusted, 1 of these must have: audit, second"),
    (statement_of_another_bundle, "about another manifest.json"),
    (files_of_another_bundle, "about another manifest.json"),
    (key_of_a_stranger, "not signed by a key that is trusted"),
    (key_of_a_stranger_with_the_genuine_keyid, "not signed by a key that is trusted"),
    (no_signature, "not signed by a key that is trusted"),
    (signature_broken, "not signed by a key that is trusted"),
    (other_payload_type, "signed as 'text/plain', not as"),
    (bare_signature, "not signed by a key that is trusted"),
    (signature_removed, "nobody signed its certificate, there is no certificate.intoto.json; `hardroute sign`"),
    (certificate_removed, "no certificate.json in it; audit it, attach the certificate, and have it signed"),
    (seal_removed, "certificate.sha256 is missing"),
    (extra_file, "certificate.json.bak is not in the manifest; remove it"),
    (envelope_huge, "larger than the limit of 1048576 bytes; have the certificate signed again"),
    (envelope_a_link, "symbolic link"),
    (envelope_with_a_key_twice, "the key 'payload' is there twice"),
    (statement_with_a_key_twice, "the key 'subject' is there twice"),
    (many_signatures, "signatures: "),
]


def refusal(root: Path, trusted: Trust) -> str:
    with pytest.raises(BundleError) as caught:
        Engine.load(root, threads=1, trust=trusted)
    line = str(caught.value)
    assert line.startswith(f"bundle {root}: ") and "\n" not in line and len(line) < 700, line
    return line


def test_the_genuine_one_passes_and_names_who_vouches(root: Path) -> None:
    with Engine.load(root, threads=1, trust=trust()) as engine:
        assert engine.bundle.vouched is not None and engine.bundle.vouched.signers == ("audit",)
        assert engine.bundle.standing.startswith(
            "certified by audit: policy called 'strict' passed on 64 clips of random"
        )


@pytest.mark.parametrize("forge, says", FORGERIES, ids=[forge.__name__ for forge, _ in FORGERIES])
def test_a_forgery_is_refused(root: Path, forge: Callable[[Path], None], says: str) -> None:
    forge(root)
    assert says in refusal(root, trust())


# --- what a trust asks for ---


def result(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["predicate"].update(result=name)


def subject(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda content: change(content["subject"])


OTHER = {"name": "other", "digest": {"sha256": "0" * 64}}


@pytest.mark.parametrize(
    "change, says",
    [
        (result("FAILED"), "the statement says FAILED, not PASSED"),
        (result("passed"), "statement: predicate.result"),
        (lambda content: content.update(predicateType="https://slsa.dev/provenance/v1"), "statement: predicateType"),
        (lambda content: content.update(_type="https://in-toto.io/Statement/v0.1"), "statement: _type"),
        (subject(lambda found: found.pop()), "not about manifest.json and certificate.json, and those alone"),
        (subject(lambda found: found.append(OTHER)), "not about manifest.json and certificate.json, and those alone"),
        (subject(lambda found: found.append({**found[0]})), "and those alone"),
        (subject(lambda found: found[0]["digest"].update(sha256="0")), "subject.0.digest.sha256"),
        (lambda content: content.pop("predicate"), "predicate: Field required"),
    ],
)
def test_another_statement_by_the_genuine_key(
    root: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    signed_statement(root, change)
    assert says in refusal(root, trust())


@pytest.mark.parametrize(
    "demand, says",
    [
        ({"policies": ("00" * 32,)}, "its policy 'strict' has the digest abab"),
        ({"clips": 65}, "audited on 64 clips, `clips` asks for 65; audit it on more"),
        ({"clean_accuracy": 0.91}, "clean accuracy 100.0%, at least 90.0% at 95% confidence, `clean_accuracy` asks"),
        ({"robust_accuracy": 0.71}, "worst case at eps 8/255 80.0%, at least 70.0% at 95% confidence, `robust_"),
        ({"eps_255": 9.0}, "audited up to eps 8/255, `eps_255` asks for 9; audit it at a larger eps"),
        ({"not_before": date(2026, 6, 2)}, "of 2026-06-01T00:00:00+00:00, before `not_before`, 2026-06-02"),
        ({"allowed": ("00" * 32,)}, "is not `allowed`; add it if you know the bundle"),
        ({"signatures": 2}, "signed by audit alone, 2 of these must have: audit, second"),
    ],
)
def test_a_demand_that_is_not_met(root: Path, demand: dict[str, Any], says: str) -> None:
    assert says in refusal(root, trust(**demand))


def test_demands_that_are_just_met(root: Path) -> None:
    bundle = Bundle.open(root)
    met = {"not_before": date(2026, 6, 1), "allowed": (bundle.digest,), "clean_accuracy": 0.9}
    assert trust(**met).verify(bundle).vouched
    # What is shown at eps 8 is shown at 4, where the interval is better still.
    assert trust(eps_255=4.0, robust_accuracy=0.85).verify(bundle).vouched
    assert Trust(keys=(signed.public(KEY),)).verify(bundle).vouched


def test_revoked(root: Path) -> None:
    bundle = Bundle.open(root)
    for digest in bundle.pin.split(":"):
        assert f"the digest {digest} is revoked" in refusal(root, trust(revoked=("00" * 32, digest)))


def test_an_old_bundle_with_its_old_genuine_certificate(root: Path) -> None:
    """A rollback: nothing in it is forged."""
    old = Bundle.open(root).digest
    signed_again(root, dated("2025-12-31T23:59:59+00:00"))
    assert "before `not_before`, 2026-01-01; audit it again" in refusal(root, trust())
    assert "is revoked" in refusal(root, trust(not_before=None, revoked=(old,)))
    assert trust(not_before=None).verify(Bundle.open(root)).vouched


def dated(text: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(created=text)


def test_age(root: Path) -> None:
    def created(days: float) -> None:
        when = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        signed_again(root, dated(when))

    created(29.9)
    assert trust(max_age_days=30).verify(Bundle.open(root)).vouched
    created(30.1)
    assert "is 30 days old, `max_age_days` is 30; audit it again" in refusal(root, trust(max_age_days=30))
    created(-2)
    assert "which is to come" in refusal(root, trust(max_age_days=30))
    for text in ("yesterday", "2026-06-01T00:00:00"):
        signed_again(root, dated(text))
        assert f"dated '{text}', no time with a zone" in refusal(root, trust())


def test_one_good_signature_of_two_is_one(root: Path) -> None:
    """A signature that nobody can judge takes nothing from one that holds; and it does not count as a second."""
    content = envelope(root)
    good = content["signatures"][0]
    for other in (STRANGER, KEY):
        more = Envelope.sign(base64.b64decode(content["payload"]), other).model_dump()["signatures"]
        put(root, {**content, "signatures": [*more, good]})
        vouched = trust().verify(Bundle.open(root)).vouched
        assert vouched is not None and vouched.signers == ("audit",)
        assert "signed by audit alone" in refusal(root, trust(signatures=2))
    sign_certificate(Bundle.open(root), SECOND)
    vouched = trust(signatures=2).verify(Bundle.open(root)).vouched
    assert vouched is not None and vouched.signers == ("audit", "second")


def test_a_failed_check_in_a_signed_certificate(root: Path) -> None:
    content = certificate(root)
    content["checks"][0]["passed"] = False
    reseal(root, content)
    bundle = Bundle.open(root)
    assert bundle.certificate_digest is not None
    claims = Statement.of(bundle.digest, bundle.certificate_digest, bundle.certificate())  # type: ignore[arg-type]
    claims = claims.model_copy(update={"predicate": claims.predicate.model_copy(update={"result": "PASSED"})})
    (root / ENVELOPE).write_bytes(Envelope.sign(claims.to_bytes(), KEY).to_bytes())
    assert "the check 'clean accuracy' failed" in refusal(root, trust())


# --- what follows from it ---


def test_the_verified_certificate_is_the_one_that_is_used(root: Path) -> None:
    """Swapped between check and use: the watch keeps the baseline that was signed for."""
    with Engine.load(root, threads=1, trust=trust()) as engine:
        before = Watch.from_bundle(engine.bundle).baseline
        baseline_swapped(root)
        assert Watch.from_bundle(engine.bundle).baseline == before
    with Engine.load(root, threads=1) as engine:
        assert Watch.from_bundle(engine.bundle).baseline != before
        certificate_edited(root)
        with pytest.raises(BundleError, match="changed since the bundle was opened"):
            Watch.from_bundle(engine.bundle)


def test_without_a_trust_it_is_said_that_nobody_was_asked(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    def said(trusted: Trust | None = None) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hardroute"):
            Engine.load(root, threads=1, trust=trusted).close()
        return [record.getMessage() for record in caplog.records]

    assert said(trust()) == []
    (line,) = said()
    assert "not verified, as no trust was given; anyone could have written: policy called 'strict' passed" in line
    content = certificate(root)
    reseal(root, {**content, "bundle": {**content["bundle"], "digest": "0" * 64}})
    (line,) = said()
    assert "not certified: " in line and "is of another bundle" in line
    certificate_removed(root)
    (line,) = said()
    assert "not certified: there is no certificate, and no trust was given" in line


def test_the_pin_covers_the_certificate(root: Path) -> None:
    files, certified = Bundle.open(root).pin.split(":")
    assert hashlib.sha256((root / "certificate.json").read_bytes()).hexdigest() == certified
    Engine.load(root, threads=1, digest=f"{files}:{certified}".upper()).close()
    for pin, says in (
        (files, "the pin is of a bundle without certificate"),
        (f"{files}:{'0' * 64}", "somebody put another certificate there"),
        (f"{'0' * 64}:{certified}", "somebody put another bundle there"),
        (f"{files}:", "give all 64 hex digits"),
        (f"{files}:{certified}:{certified}", "give all 64 hex digits"),
    ):
        with pytest.raises(BundleError, match=says):
            Engine.load(root, threads=1, digest=pin)
    baseline_swapped(root)
    with pytest.raises(BundleError, match="its certificate has the digest"):
        Bundle.open(root, f"{files}:{certified}")
    certificate_removed(root)
    assert Bundle.open(root, files).pin == files
    with pytest.raises(BundleError, match="its certificate was taken away"):
        Bundle.open(root, f"{files}:{certified}")


# --- the file ---


def write_trust(folder: Path, text: str = "", keys: str = "") -> Path:
    signed.write_keys(folder, KEY, "audit")
    keys = keys or '[[keys]]\nname = "audit"\nfile = "audit.pub.pem"\n'
    (folder / "trust.toml").write_text(f"{text}\n{keys}")
    return folder / "trust.toml"


def test_a_file_says_what_python_says(root: Path, tmp_path: Path) -> None:
    path = write_trust(
        tmp_path,
        f'policies = ["{signed.POLICY}"]\nclean_accuracy = 0.9\nrobust_accuracy = 0.7\neps_255 = 8\nclips = 64\n'
        "not_before = 2026-01-01\nmax_age_days = 36500\nrevoked = []\nsignatures = 1\n",
    )
    found = Trust.load(path)
    assert found == trust(keys=(signed.public(KEY),))
    assert found.verify(Bundle.open(root)).vouched


@pytest.mark.parametrize(
    "text, keys, says",
    [
        ("clips = 0", "", "clips must be at least 1, got 0"),
        ("clips = true", "", "clips must be a valid integer"),
        ('clips = "64"', "", "clips must be a valid integer"),
        ("clipz = 1", "", "clipz is no setting"),
        ("clean_accuracy = 1.5", "", "clean_accuracy must be at most 1, got 1.5"),
        ("clean_accuracy = nan", "", "clean_accuracy must be"),
        ("robust_accuracy = 0.5", "", "robust_accuracy means nothing without eps_255; give both"),
        ("eps_255 = 0", "", "eps_255 must be greater than 0"),
        ('policies = ["standard"]', "", "policies.0 cannot be used"),
        ("policies = []", "", "policies cannot be used"),
        ('not_before = "soon"', "", "not_before must be a valid date"),
        ("signatures = 2", "", "signatures cannot be 2 with 1 keys"),
        ("keys = []", " ", "keys cannot be used"),
        ("clips = 1", " ", "keys cannot be used: Field required"),
        ('keys = ["audit.pub.pem"]', " ", "keys: each needs a name and a PEM file"),
        ("", '[[keys]]\nname = "a"\n', "keys: each needs a name and a PEM file"),
        ("", '[[keys]]\nname = "a"\nfile = "none.pem"\n', "none.pem: cannot be read (No such file"),
        ("", '[[keys]]\nname = "a"\nfile = "trust.toml"\n', "trust.toml: no public key in PEM"),
        ("", '[[keys]]\nname = "a"\nfile = "audit.pem"\n', "audit.pem: a private key, which belongs with nobody"),
        ("", '[[keys]]\nname = "a"\nfile = "audit.pub.pem"\n' * 2, "keys hold a key or a name twice"),
        ("clips = = 1", "", "not valid TOML"),
        ("clips = 1\nclips = 2", "", "not valid TOML"),
        ("# " + "x" * 2**20, "", "larger than the limit"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, keys: str, says: str) -> None:
    path = write_trust(tmp_path, text, keys)
    with pytest.raises(TrustError) as caught:
        Trust.load(path)
    assert str(caught.value).startswith(f"trust {path}: ") and says in str(caught.value), caught.value


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(TrustError, match="cannot be read"):
            Trust.load(path)
    with pytest.raises(SettingsError, match="trust: keys"):
        Trust(keys=())


def test_the_type_is_the_one_that_is_signed(root: Path) -> None:
    assert envelope(root)["payloadType"] == PAYLOAD_TYPE
