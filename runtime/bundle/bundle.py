"""A bundle: the folder that training hands to the runtime and the audit, sealed by its manifest's digests."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hardroute.runtime.bundle.certificate import Certificate
from hardroute.runtime.bundle.manifest import SCHEMA_VERSION, Manifest
from hardroute.runtime.bundle.probes import Probes
from hardroute.runtime.bundle.sealed_files import (
    CERTIFICATE,
    MANIFEST,
    MAX_SEALED_BYTES,
    list_files,
    read_chunks,
    read_sealed,
    seal_name,
    sha256,
    write_sealed,
)
from hardroute.runtime.bundle.shipped import find_bundle
from hardroute.runtime.bundle.training_clips import TrainingClips
from hardroute.runtime.errors import BundleError

# No file can hold its own digest, and the certificate quotes the manifest's: these two have seals beside them.
_SEALED: Final = frozenset({MANIFEST, CERTIFICATE})
# Signatures come after everything that they are of, so nothing can list them either; they vouch for themselves.
ENVELOPE: Final = "certificate.intoto.json"
MODEL_SIGNATURE: Final = "model.sig"
_SIGNATURES: Final = frozenset({ENVELOPE, MODEL_SIGNATURE})
_UNLISTED: Final = _SEALED | {seal_name(name) for name in _SEALED} | _SIGNATURES


@dataclass(frozen=True)
class Vouched:
    """A certificate whose signatures were verified under a trust, and the names of the keys that signed it."""

    certificate: Certificate
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read and whose files matched their digests when it was opened.

    Attributes:
        root: its folder.
        manifest: the parsed `manifest.json`.
        digest: SHA-256 of the bytes of `manifest.json`; through the digests in there it covers every file but the
            certificate.
        certificate_digest: SHA-256 of the bytes of `certificate.json` when the bundle was opened; None: it has none.
        vouched: what `hardroute.runtime.bundle.Trust.verify` found; None: nobody's signature was asked for.

    >>> bundle = Bundle.open("motion")  # doctest: +SKIP
    >>> bundle.manifest.classes  # doctest: +SKIP
    """

    root: Path
    manifest: Manifest
    digest: str
    certificate_digest: str | None = None
    vouched: Vouched | None = None

    @classmethod
    def open(cls, path: str | Path, digest: str | None = None) -> Bundle:
        """Reads the manifest and compares every file with its digest.

        Args:
            path: its folder, or as text also the name of a shipped one: see `find_bundle`.
            digest: what `pin` must be, known from elsewhere (a note, a release). Without it damage is found, but not
                that someone put another whole bundle, or another certificate, in its place.

        Raises:
            BundleError: no such folder, broken manifest, another digest; a file missing, unlisted, changed or a link.
        """
        root = find_bundle(path)
        try:
            if not (root / MANIFEST).exists():
                raise BundleError(f"no {MANIFEST} in it; `hardroute export` makes a bundle")
            data = read_sealed(root, MANIFEST)
            manifest = Manifest.parse(data)
            _compare_names(root, manifest)
            for name, expected in manifest.files.items():
                _require_digest(name, sha256(read_chunks(root / name)), expected)
            certified = None
            if (root / CERTIFICATE).exists() or (root / seal_name(CERTIFICATE)).exists():
                certified = hashlib.sha256(read_sealed(root, CERTIFICATE)).hexdigest()
        except BundleError as error:
            raise BundleError(f"bundle {root}: {error}") from None
        bundle = cls(root, manifest, hashlib.sha256(data).hexdigest(), certified)
        if digest is not None:
            bundle.require_digest(digest)
        return bundle

    @property
    def pin(self) -> str:
        """What tells this bundle from every other: its digest, and after a colon its certificate's if it has one."""
        return self.digest if self.certificate_digest is None else f"{self.digest}:{self.certificate_digest}"

    def require_digest(self, digest: str) -> None:
        """Compares `pin` with one known from elsewhere.

        Raises:
            BundleError: they differ, also where only one of them speaks of a certificate; or `digest` is no pin.
        """
        if not re.fullmatch(r"[0-9a-f]{64}(:[0-9a-f]{64})?", digest.lower()):
            raise BundleError(f"digest {digest[:140]!r}: give all 64 hex digits; `hardroute info` prints them")
        files, _, certificate = digest.lower().partition(":")
        if files != self.digest:
            raise BundleError(
                f"bundle {self.root}: its digest is {self.digest}, not the pinned one; "
                "somebody put another bundle there, or the pin is of an older one"
            )
        if certificate == (self.certificate_digest or ""):
            return
        if self.certificate_digest is None:
            raise BundleError(f"bundle {self.root}: its certificate was taken away; put it back, or pin {self.pin}")
        if certificate:
            raise BundleError(
                f"bundle {self.root}: its certificate has the digest {self.certificate_digest}, not the pinned one; "
                "somebody put another certificate there, or the pin is of an older one"
            )
        raise BundleError(
            f"bundle {self.root}: the pin is of a bundle without certificate, and anyone could have put one there; "
            f"if you know this one, pin {self.pin}"
        )

    def path(self, name: str) -> Path:
        """Where a listed file lies. Prefer `read`: what is at a path can change after it was verified.

        Raises:
            BundleError: the manifest does not list the file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.root}: {name!r} is not in its manifest")
        return self.root / name

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, compared with its digest after reading: they are what was sealed.

        Raises:
            BundleError: not listed, gone, or changed since the bundle was opened.
        """
        path = self.path(name)
        try:
            data = b"".join(read_chunks(path))
            _require_digest(name, hashlib.sha256(data).hexdigest(), self.manifest.files[name])
        except BundleError as error:
            raise BundleError(f"bundle {self.root}: {error}") from None
        return data

    def certificate(self) -> Certificate | None:
        """What an audit vouched for, or None where no certificate lay in the bundle when it was opened.

        The verified one, if there is a `vouched`; otherwise whoever can write the bundle can have written it.

        Raises:
            BundleError: see `Certificate.parse`; the seal does not agree with it; or it is another one by now.
        """
        if self.vouched:
            return self.vouched.certificate
        if self.certificate_digest is None:
            return None
        try:
            data = read_sealed(self.root, CERTIFICATE)
            if hashlib.sha256(data).hexdigest() != self.certificate_digest:
                raise BundleError(f"{CERTIFICATE} was changed since the bundle was opened; open it again")
            return Certificate.parse(data, self.digest, self.manifest)
        except BundleError as error:
            raise BundleError(f"bundle {self.root}: {error}") from None

    @property
    def signatures(self) -> tuple[str, ...]:
        """The signature files that lie in it; says nothing of what they are worth."""
        return tuple(name for name in sorted(_SIGNATURES) if (self.root / name).exists())

    @property
    def standing(self) -> str:
        """One line: who certified what, or that nobody did."""
        if self.vouched:
            return f"certified by {', '.join(self.vouched.signers)}: {self.vouched.certificate.headline}"
        try:
            certificate = self.certificate()
        except BundleError as error:
            return f"not certified: {error}"
        if certificate is None:
            return "not certified: there is no certificate, and no trust was given"
        return f"not verified, as no trust was given; anyone could have written: {certificate.headline}"

    def attach(self, certificate: bytes) -> Path:
        """Puts a certificate of this bundle and its seal into the folder, and says where.

        Signatures of what was there before go. Open the bundle again to have the new one.

        Raises:
            BundleError: with the bundle as it was: the manifest was changed since it was opened; see
                `Certificate.parse`; or the folder cannot be written.
        """
        with self._changing_certificate():
            # Nothing that `certificate` would refuse may get in there.
            Certificate.parse(certificate, self.digest, self.manifest)
            write_sealed(self.root, CERTIFICATE, certificate)
            self._remove(*_SIGNATURES)
        return self.root / CERTIFICATE

    def detach(self) -> None:
        """Removes the certificate, its seal and its signatures, if there are any. Raises BundleError as `attach`."""
        with self._changing_certificate():
            self._remove(CERTIFICATE, seal_name(CERTIFICATE), *_SIGNATURES)

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def _changing_certificate(self) -> Iterator[None]:
        if not self.is_current():
            raise BundleError(f"bundle {self.root}: it was changed while it was audited; audit it again")
        try:
            yield
        except OSError as error:
            why = f"{CERTIFICATE} cannot be put there or taken away ({error.strerror})"
            raise BundleError(f"bundle {self.root}: {why}") from None

    def training_clips(self) -> TrainingClips | None:
        """What the bundle was trained on; None where it does not say.

        Raises:
            BundleError: see `TrainingClips.parse`.
        """
        if self.manifest.training_clips is None:
            return None
        try:
            return TrainingClips.parse(self.read(self.manifest.training_clips))
        except BundleError as error:
            raise BundleError(f"bundle {self.root}: {error}") from None

    def is_current(self) -> bool:
        """Whether the manifest on the disk is still the one that was opened; reads that file only."""
        try:
            return sha256(read_chunks(self.root / MANIFEST, MAX_SEALED_BYTES)) == self.digest
        except BundleError:
            return False

    def probes(self) -> Probes:
        """The stored clips and expected answers.

        Raises:
            BundleError: see `Probes.from_bytes`.
        """
        manifest = self.manifest
        try:
            return Probes.from_bytes(
                self.read(manifest.probes), manifest.contract, len(manifest.experts), len(manifest.classes)
            )
        except BundleError as error:
            raise BundleError(f"bundle {self.root}: {error}") from None


def write_manifest(folder: str | Path, fields: Mapping[str, object]) -> Bundle:
    """Seals a folder: computes the digest of each file in it and writes `manifest.json` and its seal last.

    Args:
        folder: holds the finished files and nothing else.
        fields: of `Manifest`, without `schema_version` and `files`.

    Returns:
        The bundle, opened again from the disk.

    Raises:
        BundleError: the fields break the schema or name a file that is not there; no manifest is written.
    """
    root = Path(folder)
    names = sorted(entry.name for entry in os.scandir(root) if entry.name not in _UNLISTED)
    files = {name: sha256(read_chunks(root / name)) for name in names}
    manifest = Manifest.from_fields({**fields, "schema_version": SCHEMA_VERSION, "files": files})
    write_sealed(root, MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return Bundle.open(root)


def _compare_names(root: Path, manifest: Manifest) -> None:
    present = list_files(root)
    if reserved := sorted(_UNLISTED & manifest.files.keys()):
        raise BundleError(f"{MANIFEST}: files: {reserved[0]} cannot be listed in it")
    if missing := sorted(manifest.files.keys() - present):
        raise BundleError(f"{missing[0]} is missing; copy or export the bundle again")
    # What no digest covers could be picked up by a library that looks beside the model for more.
    if unlisted := sorted(present - manifest.files.keys() - _UNLISTED):
        raise BundleError(f"{unlisted[0]} is not in the manifest; remove it or export the bundle again")


def _require_digest(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(
            f"{name} was changed: its SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...; "
            "copy or export the bundle again"
        )
