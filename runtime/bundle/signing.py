"""The two signature files of a bundle: its certificate's envelope, and OpenSSF model signing's over the folder."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from hardroute.runtime.bundle.bundle import ENVELOPE, MODEL_SIGNATURE, Bundle
from hardroute.runtime.bundle.sealed_files import CERTIFICATE, read_chunks
from hardroute.runtime.bundle.signature import MAX_ENVELOPE_BYTES, Envelope, PrivateKey
from hardroute.runtime.bundle.statement import Statement
from hardroute.runtime.errors import BundleError, TrustError
from hardroute.runtime.files import write_whole

if TYPE_CHECKING:
    from model_signing import hashing


def sign_certificate(bundle: Bundle, key: PrivateKey) -> Path:
    """Writes the signed statement about a bundle's manifest and certificate into the bundle, and says where.

    Signatures by others over the same statement stay.

    Raises:
        TrustError: there is no certificate, one with a failed check, or an envelope of something else.
        BundleError: the certificate is broken, or the folder cannot be written.
    """
    certificate = bundle.certificate()
    if certificate is None or bundle.certificate_digest is None:
        raise TrustError(f"bundle {bundle.root}: no {CERTIFICATE} in it to sign; audit it and attach the certificate")
    statement = Statement.of(bundle.digest, bundle.certificate_digest, certificate)
    target, beside = bundle.root / ENVELOPE, None
    if target.exists():
        try:
            beside = Envelope.parse(b"".join(read_chunks(target, MAX_ENVELOPE_BYTES)))
            if beside.content != statement.to_bytes():
                raise TrustError("it is of another statement")
        except BundleError as error:
            raise TrustError(f"bundle {bundle.root}: {ENVELOPE}: {error}; remove it and sign again") from None
    try:
        statement.require_about(bundle.digest, bundle.certificate_digest)
    except TrustError as error:
        raise TrustError(f"bundle {bundle.root}: {error}; what failed is not signed") from None
    _write(target, Envelope.sign(statement.to_bytes(), key, beside).to_bytes())
    return target


def why_no_folder(key: object) -> str:
    """Why `sign_folder` and `verify_folder` cannot work with such a key, or here; empty if they can."""
    if not isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return "OpenSSF model signing takes EC keys only"
    # It needs pyOpenSSL, and does not say so to pip.
    missing = [name for name in ("model_signing", "OpenSSL") if importlib.util.find_spec(name) is None]
    return f"that needs {missing[0]}: pip install 'hardroute[sign]'" if missing else ""


def sign_folder(bundle: Bundle, key_file: str | Path, password: bytes | None = None) -> Path:
    """Writes `model.sig`, as `model_signing verify` reads it, and says where. Needs the extra `sign`.

    It covers every file of the folder but itself and the certificate's envelope: others may sign that later.

    Args:
        key_file: of an EC key; the library takes no other kind.

    Raises:
        BundleError: the folder cannot be written.
    """
    from model_signing import signing

    # The library says `str`, and hands it to a function that wants bytes.
    config = signing.Config().use_elliptic_key_signer(private_key=key_file, password=password)  # type: ignore[arg-type]
    config.set_hashing_config(_hashing())
    target = bundle.root / MODEL_SIGNATURE
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / MODEL_SIGNATURE
        config.sign(bundle.root.resolve(), made)
        _write(target, made.read_bytes())
    return target


def verify_folder(bundle: Bundle, key_files: Sequence[Path]) -> Path:
    """Which of some EC public keys made `model.sig` of the folder as it is. Needs the extra `sign`.

    Raises:
        TrustError: none of them, or it is of other files.
        BundleError: it is a link, or larger than any signature.
    """
    from model_signing import verifying

    # The library reads a file of any size, and follows links.
    for _ in read_chunks(bundle.root / MODEL_SIGNATURE, MAX_ENVELOPE_BYTES):
        pass
    said = []
    for key_file in key_files:
        try:
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=key_file)
            verifier.set_hashing_config(_hashing())
            verifier.verify(bundle.root.resolve(), bundle.root / MODEL_SIGNATURE)
        except Exception as error:
            # It is the library's own parser of a stranger's file; whatever it trips over, the signature does not hold.
            said.append(f"{key_file}: {type(error).__name__}: {str(error)[:300]}")
        else:
            return key_file
    raise TrustError(f"does not hold ({'; '.join(said)})")


def _hashing() -> hashing.Config:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[MODEL_SIGNATURE, ENVELOPE], ignore_git_paths=False)


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror})") from None
