"""Keys, and signed envelopes (DSSE v1): whose key vouches for which bytes.

https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md has the format. Needs `cryptography`, which costs
tens of milliseconds to import: nothing imports this module that does without a trust.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hardroute.runtime.bundle.manifest import first_error
from hardroute.runtime.errors import TrustError
from hardroute.runtime.files import TooLargeError, parse_json, read_regular

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES: Final = 2**20
MAX_SIGNATURES: Final = 16  # each may be tried with each key
_MAX_KEY_BYTES: Final = 2**16
_KINDS: Final = "an EC key on P-256, P-384 or P-521, or an Ed25519 key"
# A hash as strong as the curve, as OpenSSF model signing has it.
_HASHES: Final[dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class PublicKey:
    """A public key, and what its owner is called in messages.

    >>> PublicKey.load("audit.pub.pem", name="audit")  # doctest: +SKIP
    """

    name: str
    key: _Public

    @classmethod
    def load(cls, path: str | Path, name: str | None = None) -> PublicKey:
        """Reads a PEM file ("BEGIN PUBLIC KEY").

        Args:
            name: the owner's; None: the file's.

        Raises:
            TrustError: the file cannot be read, or holds something else.
        """
        pem = _read_key(path)
        if b"PRIVATE KEY" in pem:
            raise TrustError(
                f"key file {path}: a private key, which belongs with nobody who only verifies; "
                "`openssl pkey -pubout` makes the public one of it"
            )
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, _Public) or not _known_curve(key):
            raise TrustError(f"key file {path}: no public key in PEM; give {_KINDS}")
        return cls(Path(path).name if name is None else name, key)

    @classmethod
    def of(cls, key: PrivateKey, name: str) -> PublicKey:
        """The public half of a private key."""
        return cls(name, key.public_key())

    @property
    def keyid(self) -> str:
        """SHA-256 of the key in DER (SubjectPublicKeyInfo), hex."""
        return hashlib.sha256(self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def made(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is this key's over `data`."""
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, data)
            else:
                self.key.verify(signature, data, ec.ECDSA(_HASHES[self.key.curve.name]()))
        except InvalidSignature:
            return False
        return True


def load_private_key(path: str | Path, password: bytes | None = None) -> PrivateKey:
    """Reads a PEM file ("BEGIN PRIVATE KEY" and the like).

    Raises:
        TrustError: the file cannot be read, holds something else, or the password does not fit.
    """
    pem = _read_key(path)
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        wanted = "has no password, and one was given" if password is not None else "has a password; give it"
        raise TrustError(f"key file {path}: {wanted}") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "no private key in PEM, or another password" if password is not None else "no private key in PEM"
        raise TrustError(f"key file {path}: {wrong}; give {_KINDS}") from None
    if not isinstance(key, PrivateKey) or not _known_curve(key.public_key()):
        raise TrustError(f"key file {path}: a key of another kind; give {_KINDS}")
    return key


class _Signature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    keyid: str = Field("", max_length=1024)
    sig: str = Field(max_length=4096)


class Envelope(BaseModel):
    """Bytes and signatures over them and their type. What a later version of the format adds is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    payload: str
    payloadType: str = Field(max_length=256)
    signatures: list[_Signature] = Field(max_length=MAX_SIGNATURES)

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Reads an envelope; says nothing of its signatures.

        Raises:
            TrustError: not JSON, a field that breaks the format, another type than in-toto, no base64.
        """
        try:
            found = cls.model_validate(parse_json(data))
            base64.b64decode(found.payload, validate=True)
            for signature in found.signatures:
                base64.b64decode(signature.sig, validate=True)
        except ValidationError as error:
            raise TrustError(first_error(error)) from None
        except (ValueError, binascii.Error) as error:
            raise TrustError(f"no signed envelope: {error}") from None
        if found.payloadType != PAYLOAD_TYPE:
            raise TrustError(f"signed as {found.payloadType!r}, not as {PAYLOAD_TYPE!r}")
        return found

    @classmethod
    def sign(cls, content: bytes, key: PrivateKey, beside: Envelope | None = None) -> Envelope:
        """An envelope of an in-toto statement.

        Args:
            beside: an envelope of the same bytes, whose other signatures are kept.
        """
        public = PublicKey.of(key, "")
        data = pre_authentication(PAYLOAD_TYPE, content)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            made = key.sign(data)
        else:
            made = key.sign(data, ec.ECDSA(_HASHES[key.curve.name]()))
        others = (
            [one for one in beside.signatures if not public.made(base64.b64decode(one.sig), data)] if beside else []
        )
        mine = _Signature(keyid=public.keyid, sig=base64.b64encode(made).decode())
        return cls(payload=base64.b64encode(content).decode(), payloadType=PAYLOAD_TYPE, signatures=[*others, mine])

    @property
    def content(self) -> bytes:
        """The bytes that were signed for."""
        return base64.b64decode(self.payload)

    def signers(self, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
        """Those of `keys` that have signed. `keyid` is nobody's word and not looked at."""
        data = pre_authentication(self.payloadType, self.content)
        signatures = [base64.b64decode(each.sig) for each in self.signatures]
        return tuple(key for key in keys if any(key.made(signature, data) for signature in signatures))

    def to_bytes(self) -> bytes:
        """The bytes of the file, as `parse` reads them."""
        return (json.dumps(self.model_dump(), indent=2) + "\n").encode()


def pre_authentication(payload_type: str, content: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, PAE(type, body)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(content), content)


def _known_curve(key: _Public) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) or key.curve.name in _HASHES


def _read_key(path: str | Path) -> bytes:
    try:
        return read_regular(path, _MAX_KEY_BYTES)
    except OSError as error:
        raise TrustError(f"key file {path}: cannot be read ({error.strerror or error})") from None
    except TooLargeError:
        raise TrustError(f"key file {path}: larger than any key; give {_KINDS} in PEM") from None
