"""What an audit is about to do, written down before its first attack, so that nothing is chosen by its outcome."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from hardroute.audit.clip_selection import data_digest, distinct
from hardroute.audit.floors import Basis, shortfalls
from hardroute.audit.policy import Policy
from hardroute.audit.policy_digest import definition, digest
from hardroute.audit.result import WORK, Means
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.datasets import ClipArrays, ClipSet
from hardroute.runtime.errors import BundleError, DataError, HardrouteError, PolicyError
from hardroute.runtime.files import TooLargeError, open_regular, printable, read_regular, write_together

NAME: Final = "plan.json"
SIGNATURE: Final = "plan.json.sig"
MAX_BYTES: Final = 1 << 20
SCHEMA_VERSION: Final = 1
_CHUNK: Final = 1 << 20

# Signs the bytes of a plan: what it returns is written beside it.
Sign = Callable[[bytes], bytes]

log = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedBundle(_Part):
    """Which bundle is audited; `digest`: of its manifest; `classes`: how many it tells apart."""

    name: str
    digest: str
    classes: int


class PlannedPolicy(_Part):
    """Under which policy: what it is called, its content, and what that makes an audit do, with its digest."""

    title: str
    digest: str
    content: Policy
    definition: dict[str, JsonValue]


class PlannedData(_Part):
    """On which clips.

    Attributes:
        clips: how many. distinct: that are no copies of each other. copies: that were left out for being copies.
        limit: how many were asked for where that was fewer than the policy's. digest: of clips and labels.
    """

    name: str
    split: str
    clips: int
    distinct: int
    copies: int
    limit: int | None
    digest: str


class PlannedMeans(_Part):
    """How. `sources`: digests of other bundles whose adversarial clips are shown, by name."""

    thorough: bool
    attack_precision: str
    device: str
    backend: str
    sources: dict[str, str]
    undefended: tuple[str, ...]


class Plan(_Part):
    """plan.json, schema version 1: fixed before the first attack, and quoted by report and certificate.

    Attributes:
        created: UTC, ISO 8601.
    """

    schema_version: Literal[1]
    created: str
    bundle: PlannedBundle
    policy: PlannedPolicy
    data: PlannedData
    means: PlannedMeans

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        clips: ClipArrays,
        policy: Policy,
        means: Means,
        *,
        data: str,
        limit: int | None = None,
        copies: int = 0,
    ) -> Plan:
        """Of an audit that starts now.

        Args:
            clips: those that are audited, in the bundle's order of classes.
            data: what the set is called. limit: clips asked for, where that was fewer than the policy's.
            copies: clips of the set that were left out because they are copies of others.
        """
        return cls(
            schema_version=SCHEMA_VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            bundle=PlannedBundle(name=bundle.manifest.name, digest=bundle.digest, classes=len(bundle.manifest.classes)),
            policy=PlannedPolicy(
                title=policy.title, digest=digest(policy), content=policy, definition=definition(policy)
            ),
            data=PlannedData(
                name=printable(data),
                split=policy.data.split,
                clips=len(clips.labels),
                distinct=len(distinct(clips)),
                copies=copies,
                limit=limit,
                digest=data_digest(clips),
            ),
            means=PlannedMeans(
                thorough=means.thorough,
                attack_precision=means.precision,
                device=means.device,
                backend=means.backend,
                sources={name: each.digest for name, each in means.sources.items()},
                undefended=means.undefended,
            ),
        )

    def to_bytes(self) -> bytes:
        """The bytes of plan.json."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n").encode()

    @property
    def sha256(self) -> str:
        """Of the bytes of plan.json."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Why nothing is certified by this audit, a sentence each; none if it would be, once passed."""
        return shortfalls(
            Basis(
                policy=self.policy.content,
                classes=self.bundle.classes,
                distinct=self.data.distinct,
                audited=self.data.clips,
                limit=self.data.limit,
                precision=self.means.attack_precision,
            )
        )

    def going_on(self, out: Path) -> Plan:
        """The plan of an audit that was cut short in the folder `out`, if it is the same but for its time; or this."""
        # Without results to go on with, this is another audit, and it starts now.
        earlier = _read(out / NAME) if (out / WORK).exists() else None
        return earlier if earlier is not None and earlier.says_the_same(self) else self

    def write(self, out: Path, sign: Sign | None = None) -> None:
        """Writes plan.json into the folder `out`, whole, and what `sign` makes of its bytes beside it.

        Raises:
            HardrouteError: it cannot be written.
        """
        files = {NAME: self.to_bytes()}
        if sign is not None:
            files[SIGNATURE] = sign(files[NAME])
        try:
            out.mkdir(parents=True, exist_ok=True)
            # First: no plan lies beside the signature of another.
            (out / SIGNATURE).unlink(missing_ok=True)
            write_together(out, files)
        except OSError as error:
            raise HardrouteError(
                f"{out / NAME}: cannot be written ({error.strerror}); choose another folder for the report"
            ) from None

    def says_the_same(self, other: Plan) -> bool:
        """Whether both plan the same, whenever."""
        return self.model_copy(update={"created": other.created}) == other

    def is_of(self, bundle: Bundle, clips: ClipArrays, policy: Policy) -> bool:
        """Whether it plans an audit of these."""
        planned = self.bundle.digest, self.data.digest, self.policy.digest
        return planned == (bundle.digest, data_digest(clips), digest(policy))

    def require_unchanged(self, bundle: Bundle, clips: ClipArrays, clip_set: ClipSet, policy: Policy) -> None:
        """Looks at bundle, files and policy anew, when all attacks are done.

        Args:
            clips: those that were audited. clip_set: where their files lie. policy: as it is read now.

        Raises:
            BundleError, DataError, PolicyError: it is not what the plan names.
        """
        if Bundle.open(bundle.root).digest != self.bundle.digest:
            raise BundleError(f"{bundle.root}: changed while it was audited, so nothing is certified; audit it again")
        paths = {row.file: row.path for row in clip_set.rows}
        for file, sha256 in zip(clips.files, clips.sha256, strict=True):
            if _sha256(paths[file]) != sha256:
                raise DataError(
                    f"{printable(str(paths[file]))}: changed while the bundle was audited on it; audit it again"
                )
        if digest(policy) != self.policy.digest:
            raise PolicyError(f"{self.policy.title}: changed while the bundle was audited by it; audit it again")


def _read(path: Path) -> Plan | None:
    """An earlier plan; None where there is none that could be gone on with."""
    try:
        return Plan.model_validate_json(read_regular(path, MAX_BYTES))
    except (FileNotFoundError, TooLargeError):
        return None
    except (OSError, ValidationError) as error:
        log.info("%s: no plan of an audit to go on with (%s)", path, type(error).__name__)
        return None


def _sha256(path: Path) -> str | None:
    found = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return None  # gone: not what it was
    return found.hexdigest()
