"""Keys that live as long as a test, and bundles signed with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hardroute import Bundle, Engine
from hardroute.runtime.bundle import Baseline, Certificate, CertifiedCheck, PublicKey, RobustAccuracy
from hardroute.runtime.bundle.signature import PrivateKey
from hardroute.runtime.bundle.signing import sign_certificate
from tests.support import bundles

POLICY = "ab" * 32
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
KINDS = (*CURVES, "ed25519")


def new_key(kind: str = "ed25519") -> PrivateKey:
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(CURVES[kind])


def public(key: PrivateKey, name: str = "audit") -> PublicKey:
    return PublicKey.of(key, name)


def write_keys(folder: Path, key: PrivateKey, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Paths of the private and the public PEM file."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    private, shown = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    shown.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, shown


def attach(root: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Bundle:
    """A certificate that a demanding trust accepts, but for `change`. The bundle is opened again."""
    bundle = Bundle.open(root)
    with Engine.load(bundle, threads=1) as engine:
        baseline = Baseline.of(engine.predict_batch(bundles.random_frames(64, bundle.manifest.contract)))
    content = bundles.certificate_for(bundle, baseline).model_dump(mode="json")
    content["created"] = "2026-06-01T00:00:00+00:00"
    content["policy"] = {"digest": POLICY, "content": {"name": "strict"}}
    shares = {"successes": 60, "n": 64, "share": 0.9375, "low": 0.85, "high": 0.98, "confidence": 0.95}
    content["robust_accuracy"] = [
        RobustAccuracy(**shares, eps_255=4, decides=False).model_dump(),
        RobustAccuracy(**{**shares, "low": 0.7, "share": 0.8}, eps_255=8, decides=True).model_dump(),
    ]
    content["checks"] = [
        CertifiedCheck(
            name="clean accuracy", measured=1.0, wants="at least", bound=0.8, sentence="clean", passed=True
        ).model_dump()
    ]
    change(content)
    bundle.attach(Certificate.model_validate_json(json.dumps(content)).to_bytes())
    return Bundle.open(root)


def sign(root: Path, *keys: PrivateKey) -> Bundle:
    for key in keys:
        sign_certificate(Bundle.open(root), key)
    return Bundle.open(root)
