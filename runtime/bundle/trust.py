"""A trust: whose signatures under a bundle's certificate count, and what the certificate has to say."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, InstanceOf, ValidationInfo, field_validator

from hardroute.runtime.bundle.bundle import ENVELOPE, Bundle, Vouched
from hardroute.runtime.bundle.certificate import Accuracy, Certificate
from hardroute.runtime.bundle.manifest import Sha256
from hardroute.runtime.bundle.sealed_files import CERTIFICATE, read_chunks
from hardroute.runtime.bundle.signature import MAX_ENVELOPE_BYTES, Envelope, PublicKey
from hardroute.runtime.bundle.statement import Statement
from hardroute.runtime.errors import BundleError, SettingsError, TrustError
from hardroute.runtime.files import TooLargeError, read_regular
from hardroute.runtime.settings import Settings

MAX_KEYS: Final = 16
MAX_DIGESTS: Final = 10_000
_MAX_FILE_BYTES: Final = 2**20
# Clocks of two machines differ; a certificate from further ahead was dated so that it never grows old.
_AHEAD: Final = timedelta(days=1)
_Digests = Annotated[tuple[Sha256, ...], Field(max_length=MAX_DIGESTS)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Trust(Settings):
    """Whom to believe, and what a bundle must show. What is left out is not asked for; a signature always is.

    Attributes:
        keys: whose signatures count.
        signatures: so many of them must have signed.
        policies: digests of the policies that count.
        clean_accuracy: least accuracy on unattacked clips: the lower end of its interval, 0 to 1.
        eps_255: the certificate must speak of a perturbation (L-inf, in 1/255) of so much or more.
        robust_accuracy: least worst-case accuracy at `eps_255` or more: the lower end of its interval, 0 to 1.
        clips: least number of clips.
        not_before: certificates from before this day (UTC) do not count.
        max_age_days: nor do those that are older.
        allowed: the bundles that count, by digest.
        revoked: digests of bundles and of certificates that do not count any more.

    >>> trust = Trust.load("trust.toml")  # doctest: +SKIP
    >>> engine = Engine.load("bundle/", trust=trust)  # doctest: +SKIP
    """

    model_config = ConfigDict(strict=True)
    what: ClassVar[str] = "trust"

    keys: Annotated[tuple[InstanceOf[PublicKey], ...], Field(min_length=1, max_length=MAX_KEYS)]
    signatures: int = Field(1, ge=1, le=MAX_KEYS)
    policies: Annotated[_Digests, Field(min_length=1)] | None = None
    clean_accuracy: _Share | None = None
    eps_255: float | None = Field(None, gt=0, le=255)
    robust_accuracy: _Share | None = None
    clips: int | None = Field(None, ge=1)
    not_before: date | None = None
    max_age_days: int | None = Field(None, ge=1, le=36_500)
    allowed: Annotated[_Digests, Field(min_length=1)] | None = None
    revoked: _Digests = ()

    @field_validator("keys")
    @classmethod
    def _each_once(cls, keys: tuple[PublicKey, ...]) -> tuple[PublicKey, ...]:
        for what in ([key.name for key in keys], [key.keyid for key in keys]):
            if len(set(what)) < len(what):
                raise ValueError("hold a key or a name twice")
        return keys

    @field_validator("signatures")
    @classmethod
    def _can_be_met(cls, signatures: int, info: ValidationInfo) -> int:
        keys = info.data.get("keys", ())
        if keys and signatures > len(keys):
            raise ValueError(f"cannot be {signatures} with {len(keys)} keys")
        return signatures

    @field_validator("robust_accuracy")
    @classmethod
    def _means_something(cls, robust_accuracy: float | None, info: ValidationInfo) -> float | None:
        if robust_accuracy is not None and info.data.get("eps_255") is None:
            raise ValueError("means nothing without eps_255; give both")
        return robust_accuracy

    @classmethod
    def load(cls, path: str | Path) -> Trust:
        """Reads a TOML file with these fields. Each of its `[[keys]]` has a `name`, and a `file` beside it.

        Raises:
            TrustError: one line that names file, field and what is wrong with it.
        """
        path = Path(path)
        try:
            content = tomllib.loads(read_regular(path, _MAX_FILE_BYTES).decode("utf-8"))
        except TooLargeError:
            raise TrustError(f"trust {path}: larger than the limit of {_MAX_FILE_BYTES} bytes") from None
        except OSError as error:
            raise TrustError(f"trust {path}: cannot be read ({error.strerror or error}); give a TOML file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TrustError(f"trust {path}: not valid TOML: {error}") from None
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        try:
            if "keys" in fields:
                fields["keys"] = _keys(fields["keys"], path.parent)
            return cls(**fields)
        except TrustError as error:
            raise TrustError(f"trust {path}: {error}") from None
        except SettingsError as error:
            raise TrustError(f"trust {path}: {error.field} {error.problem}") from None

    def verify(self, bundle: Bundle) -> Bundle:
        """Holds a bundle to this trust.

        Returns:
            The bundle with what was found as `vouched`; its certificate is the verified one from here on, whatever
            comes to lie in its place.

        Raises:
            TrustError: the first demand that it does not meet, and how to mend that.
            BundleError: the certificate is broken.
        """
        try:
            self._require_listed(bundle)
            certificate = bundle.certificate()
            if certificate is None or bundle.certificate_digest is None:
                raise TrustError(f"no {CERTIFICATE} in it; audit it, attach the certificate, and have it signed")
            signers = self._signers(bundle, bundle.certificate_digest)
            self._judge(certificate)
        except TrustError as error:
            raise TrustError(f"bundle {bundle.root}: not trusted: {error}") from None
        return replace(bundle, vouched=Vouched(certificate, signers))

    def _require_listed(self, bundle: Bundle) -> None:
        for digest in (bundle.digest, bundle.certificate_digest):
            if digest in self.revoked:
                raise TrustError(f"the digest {digest} is revoked; serve another bundle or certificate")
        if self.allowed is not None and bundle.digest not in self.allowed:
            raise TrustError(f"its digest {bundle.digest} is not `allowed`; add it if you know the bundle")

    def _signers(self, bundle: Bundle, certificate_digest: str) -> tuple[str, ...]:
        """The names of those who signed for this very bundle and certificate."""
        if not (bundle.root / ENVELOPE).exists():
            raise TrustError(f"nobody signed its certificate, there is no {ENVELOPE}; `hardroute sign` makes one")
        try:
            data = b"".join(read_chunks(bundle.root / ENVELOPE, MAX_ENVELOPE_BYTES))
        except BundleError as error:
            raise TrustError(f"{error}; have the certificate signed again") from None
        try:
            envelope = Envelope.parse(data)
            signers = tuple(key.name for key in envelope.signers(self.keys))
            if len(signers) < self.signatures:
                by = f"signed by {', '.join(signers)} alone" if signers else "not signed by a key that is trusted"
                known = ", ".join(key.name for key in self.keys)
                raise TrustError(f"{by}, {self.signatures} of these must have: {known}")
            Statement.parse(envelope.content).require_about(bundle.digest, certificate_digest)
        except TrustError as error:
            raise TrustError(f"{ENVELOPE}: {error}; have this certificate signed again by who is trusted") from None
        return signers

    def _judge(self, certificate: Certificate) -> None:
        policy, data = certificate.policy, certificate.data
        if self.policies is not None and policy.digest not in self.policies:
            raise TrustError(
                f"its policy {policy.content.name!r} has the digest {policy.digest}, which is not among `policies`; "
                "audit it by one that is, or add this one"
            )
        if failed := [check.name for check in certificate.checks if not check.passed]:
            raise TrustError(f"its certificate says that the check {failed[0]!r} failed; audit it again")
        if self.clips is not None and data.clips < self.clips:
            raise TrustError(f"audited on {data.clips} clips, `clips` asks for {self.clips}; audit it on more")
        if self.clean_accuracy is not None:
            _require_accuracy("clean accuracy", certificate.clean_accuracy, self.clean_accuracy, "clean_accuracy")
        if self.eps_255 is not None:
            at_least = [at for at in certificate.robust_accuracy if at.eps_255 >= self.eps_255]
            if not at_least:
                most = max((at.eps_255 for at in certificate.robust_accuracy), default=0.0)
                raise TrustError(
                    f"audited up to eps {most:g}/255, `eps_255` asks for {self.eps_255:g}; audit it at a larger eps"
                )
            if self.robust_accuracy is not None:
                # What holds at a larger eps holds at a smaller one, too.
                best = max(at_least, key=lambda at: at.low)
                what = f"worst case at eps {best.eps_255:g}/255"
                _require_accuracy(what, best, self.robust_accuracy, "robust_accuracy")
        self._require_recent(certificate.created)

    def _require_recent(self, created: str) -> None:
        if self.not_before is None and self.max_age_days is None:
            return
        try:
            when = datetime.fromisoformat(created)
        except ValueError:
            when = None
        if when is None or when.tzinfo is None:
            raise TrustError(f"its certificate is dated {created[:40]!r}, no time with a zone; audit it again")
        if self.not_before is not None and when < datetime.combine(self.not_before, time(), UTC):
            raise TrustError(f"its certificate is of {created}, before `not_before`, {self.not_before}; audit it again")
        if self.max_age_days is not None:
            age = datetime.now(UTC) - when
            if age > timedelta(days=self.max_age_days):
                raise TrustError(
                    f"its certificate is {age.days} days old, `max_age_days` is {self.max_age_days}; audit it again"
                )
            if age < -_AHEAD:
                raise TrustError(f"its certificate is of {created}, which is to come; set the clock, or audit it again")


def _require_accuracy(what: str, found: Accuracy, least: float, field: str) -> None:
    if found.low < least:
        raise TrustError(
            f"{what} {found.share:.1%}, at least {found.low:.1%} at {found.confidence:.0%} confidence, "
            f"`{field}` asks for {least:.1%}; serve a bundle that holds more"
        )


def _keys(entries: object, folder: Path) -> tuple[PublicKey, ...]:
    keys = []
    for entry in entries if isinstance(entries, tuple) else (entries,):
        values: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
        name, file = values.get("name"), values.get("file")
        if values.keys() != {"name", "file"} or not (isinstance(name, str) and name and isinstance(file, str)):
            raise TrustError('keys: each needs a name and a PEM file: [[keys]], name = "audit", file = "audit.pub.pem"')
        keys.append(PublicKey.load(folder / file, name))
    return tuple(keys)
