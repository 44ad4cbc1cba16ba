"""A bundle: the folder that training hands to the runtime and the audit, sealed by its manifest's digests."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime.errors import BundleError
from runtime.manifest import SCHEMA_VERSION, Manifest
from runtime.probes import Probes

MANIFEST: Final = "manifest.json"
# The certificate quotes the manifest's digest, so the manifest cannot hold the certificate's.
UNSEALED: Final = frozenset({MANIFEST, "certificate.json"})
MAX_MANIFEST_BYTES: Final = 4 * 2**20
MAX_FILE_BYTES: Final = 2 * 2**30  # what one ONNX protobuf can hold
_CHUNK: Final = 2**20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read and whose files matched their digests when it was opened.

    Attributes:
        root: its folder.
        manifest: the parsed `manifest.json`.
        digest: SHA-256 of the bytes of `manifest.json`; through the digests in there it covers every file.

    >>> bundle = Bundle.open("models/zoo/motion")  # doctest: +SKIP
    >>> bundle.manifest.classes  # doctest: +SKIP
    """

    root: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Reads the manifest and compares every file with its digest.

        Raises:
            BundleError: no such folder, broken manifest; a file missing, unlisted, changed or a link.
        """
        root = Path(path)
        if not root.is_dir():
            raise BundleError(f"{root}: no such bundle folder")
        try:
            if not (root / MANIFEST).exists():
                raise BundleError(f"no {MANIFEST} in it; `python -m training export` makes a bundle")
            data = b"".join(_chunks(root / MANIFEST, MAX_MANIFEST_BYTES))
            manifest = Manifest.parse(data)
            _compare_names(root, manifest)
            for name, digest in manifest.files.items():
                _require_digest(name, _sha256(_chunks(root / name)), digest)
        except BundleError as error:
            raise BundleError(f"bundle {root}: {error}") from None
        return cls(root, manifest, hashlib.sha256(data).hexdigest())

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
            data = b"".join(_chunks(path))
            _require_digest(name, hashlib.sha256(data).hexdigest(), self.manifest.files[name])
        except BundleError as error:
            raise BundleError(f"bundle {self.root}: {error}") from None
        return data

    def is_current(self) -> bool:
        """Whether the manifest on the disk is still the one that was opened; reads that file only."""
        try:
            return _sha256(_chunks(self.root / MANIFEST, MAX_MANIFEST_BYTES)) == self.digest
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


def write_manifest(folder: str | Path, fields: Mapping[str, Any]) -> Bundle:
    """Seals a folder: computes the digest of each file in it and writes `manifest.json` last, in one rename.

    Args:
        folder: holds the finished files and nothing else.
        fields: of `Manifest`, without `schema_version` and `files`.

    Returns:
        The bundle, opened again from the disk.

    Raises:
        BundleError: the fields break the schema or name a file that is not there; no manifest is written.
    """
    root = Path(folder)
    temporary = root / f".{MANIFEST}.tmp"
    names = sorted(entry.name for entry in os.scandir(root) if entry.name not in UNSEALED | {temporary.name})
    files = {name: _sha256(_chunks(root / name)) for name in names}
    manifest = Manifest.from_fields({**fields, "schema_version": SCHEMA_VERSION, "files": files})
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(root / MANIFEST)
    return Bundle.open(root)


def _compare_names(root: Path, manifest: Manifest) -> None:
    present = {entry.name for entry in os.scandir(root)}
    if reserved := sorted(UNSEALED & manifest.files.keys()):
        raise BundleError(f"{MANIFEST}: files: {reserved[0]} cannot be sealed by the manifest")
    if missing := sorted(manifest.files.keys() - present):
        raise BundleError(f"{missing[0]} is missing; copy or export the bundle again")
    # What no digest covers could be picked up by a library that looks beside the model for more.
    if unlisted := sorted(present - manifest.files.keys() - UNSEALED):
        raise BundleError(f"{unlisted[0]} is not in the manifest; remove it or export the bundle again")


def _require_digest(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(
            f"{name} was changed: its SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...; "
            "copy or export the bundle again"
        )


def _sha256(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path, limit: int = MAX_FILE_BYTES) -> Iterator[bytes]:
    """Reads a regular file; what is judged is the open file, so its name cannot be swapped in between."""
    # Without O_NONBLOCK, opening a named pipe would wait for ever.
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    try:
        if path.is_symlink():
            raise BundleError(f"{path.name} is a symbolic link; put the file itself into the bundle")
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"{path.name} is not a regular file")
            size = 0
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise BundleError(f"{path.name} is larger than the limit of {limit} bytes")
                yield chunk
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error.strerror}") from None
