"""Signed notes: a text that people and programs can read, and ed25519 signatures under it.

The format is https://c2sp.org/signed-note, as transparency logs use it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hardroute.runtime.errors import LogError
from hardroute.runtime.files import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519: Final = b"\x01"
_DASH: Final = "\N{EM DASH} "
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")
_MAX_KEY_BYTES: Final = 1 << 14
_MAX_SIGNATURES: Final = 16


class MalformedNote(ValueError):
    """Bytes that are no signed note; the text says why."""


@dataclass(frozen=True)
class Note:
    """A note and its signatures.

    Attributes:
        text: what is signed; it ends with a line break.
        signatures: name of the key, its id (4 bytes) with the signature after it.
    """

    text: str
    signatures: tuple[tuple[str, bytes], ...]

    @classmethod
    def parse(cls, note: str) -> Note:
        """Reads a note. Raises MalformedNote."""
        text, blank, rest = note.rpartition("\n\n")
        if not blank or not text or not rest.endswith("\n"):
            raise MalformedNote("is no text, blank line and signatures")
        if any(character < " " and character != "\n" for character in note):
            raise MalformedNote("holds control characters")
        lines = rest[:-1].split("\n")
        if len(lines) > _MAX_SIGNATURES:
            raise MalformedNote(f"has more than {_MAX_SIGNATURES} signatures")
        return cls(f"{text}\n", tuple(map(_signature, lines)))

    def __str__(self) -> str:
        lines = (f"{_DASH}{name} {base64.b64encode(data).decode()}\n" for name, data in self.signatures)
        return f"{self.text}\n{''.join(lines)}"


class Signer:
    """Signs notes with a key under a name.

    Args:
        name: of the key: no blanks, no "+".
        key: PEM file with an ed25519 private key, not encrypted.

    Raises:
        LogError: there is no such key in it, or the name cannot be one.
    """

    def __init__(self, name: str, key: str | Path) -> None:
        if not is_name(name):
            raise LogError(f"{name!r:.100} cannot name a key: it needs 1 to 200 characters, no blanks and no '+'")
        self.name = name
        self._key = _private_key(Path(key))

    def sign(self, text: str) -> Note:
        """The text, which ends with a line break, and its signature."""
        return Note(text, ((self.name, _key_id(self.name, self._key.public_key()) + self._key.sign(text.encode())),))


class Verifier:
    """Knows one public key, under whatever name it signs.

    Args:
        key: PEM file with an ed25519 public key.

    Raises:
        LogError: there is no such key in it.
    """

    def __init__(self, key: str | Path) -> None:
        self._key = _public_key(Path(key))

    def accepts(self, note: Note) -> bool:
        """Whether the key has signed the note. Other keys' signatures mean nothing, and harm nothing."""
        from cryptography.exceptions import InvalidSignature

        own = [data[4:] for name, data in note.signatures if data[:4] == _key_id(name, self._key)]
        try:
            for signature in own:
                self._key.verify(signature, note.text.encode())
        except InvalidSignature:
            return False
        return bool(own)


def is_name(text: str) -> bool:
    """Whether a key may be called so, and a log."""
    return bool(_NAME.fullmatch(text)) and text.isprintable()


def _signature(line: str) -> tuple[str, bytes]:
    name, blank, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not blank or not is_name(name):
        raise MalformedNote("has a signature line that is not a dash, a name and a signature")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedNote("has a signature that is not base64") from None
    if not 5 <= len(data) <= _MAX_KEY_BYTES:
        raise MalformedNote("has a signature of no known length")
    return name, data


def _key_id(name: str, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:4]


def _private_key(path: Path) -> Ed25519PrivateKey:
    data = _read(path)
    # Most logs have no key, and the library is dear to load.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise LogError(
            f"key {path}: holds no ed25519 private key in PEM, without a password; "
            "`openssl genpkey -algorithm ed25519` makes one"
        )
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    data = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise LogError(
            f"key {path}: holds no ed25519 public key in PEM; `openssl pkey -in KEY -pubout` makes it of a private one"
        )
    return key


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise LogError(f"key {path}: cannot be read: {error.strerror or error}") from None
