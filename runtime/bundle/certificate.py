"""`certificate.json`: what a passed audit vouches for, bound by digests to bundle, policy, clips and report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.bundle.manifest import Manifest, Name, Sha256, first_error, require_printable, require_version
from hardroute.runtime.errors import BundleError

SCHEMA_VERSION: Final = 2
_MANY: Final = 256  # more attacks, budgets or checks than any audit has
_Text = Annotated[str, Field(max_length=4096), AfterValidator(require_printable)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    # What a later version of hardroute adds within this schema is not looked at.
    model_config = ConfigDict(frozen=True, extra="ignore")


class CertifiedBundle(_Part):
    """Which bundle was audited."""

    name: Name
    digest: Sha256


class PolicyContent(_Part):
    """The policy as the audit read it. Its schema is the audit's; here only its name has a meaning."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    name: _Text


def definition_digest(definition: Mapping[str, JsonValue]) -> str:
    """SHA-256 of a policy's definition as JSON: keys sorted, no blanks, in ASCII, numbers as Python writes them."""
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class CertifiedPolicy(_Part):
    """Which policy it passed.

    Attributes:
        digest: `definition_digest` of the definition; in a certificate without one (of hardroute 0.1), of `content`.
        title: what the audit called it: `policy "standard"` if it is the shipped one, else `custom policy "..."`.
        definition: what the policy made the audit do and ask; names of policy, suite and attacks are not in it.
    """

    digest: Sha256
    content: PolicyContent
    title: _Text | None = None
    definition: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _of_its_definition(self) -> CertifiedPolicy:
        if self.definition is not None and definition_digest(self.definition) != self.digest:
            raise ValueError("digest is not that of the definition; audit the bundle again")
        return self

    @property
    def called(self) -> str:
        """Its title, or what it calls itself where nobody has judged that."""
        return self.title or f"policy called {self.content.name!r}"


class CertifiedData(_Part):
    """Which clips it was audited on.

    Attributes:
        limit: None: all of the policy's clips.
        digest: SHA-256 over a line "<digest of the file's bytes> <class>" per clip, in the report's order.
    """

    name: _Text
    split: _Text
    clips: int = Field(ge=1)
    limit: int | None
    digest: Sha256


class CertifiedSource(_Part):
    """Another bundle whose adversarial clips were shown to the audited one."""

    digest: Sha256
    undefended: bool


class Accuracy(_Part):
    """A share of `n` clips, and its two-sided interval at `confidence`."""

    successes: int = Field(ge=0)
    n: int = Field(ge=1)
    share: _Share
    low: _Share
    high: _Share
    confidence: _Share


class RobustAccuracy(Accuracy):
    """Worst case per clip over all attacks at eps (L-inf, in 1/255); `decides`: the policy asked for this one."""

    eps_255: float = Field(ge=0, le=255)
    decides: bool


class CertifiedCheck(_Part):
    """One check of the policy, and what was found; `measured` is None where that is no finite number."""

    name: _Text
    measured: _Finite | None
    wants: Literal["at least", "at most"]
    bound: _Finite
    sentence: _Text
    passed: bool


class Certificate(_Part):
    """`certificate.json`, schema version 2. Whoever can write the bundle can write it; a trust asks for signatures.

    Attributes:
        created: when, UTC, ISO 8601.
        bundle: which bundle was audited.
        policy: which policy it passed.
        data: on which clips.
        threat_model: a statement each on the norm, what the attacker knows, and the like; for people.
        attacks: names of those that were run.
        sources: other bundles whose adversarial clips were shown to it, by name; None: there were none.
        clean_accuracy: of the unattacked clips, right in the PyTorch twin and in the runtime.
        robust_accuracy: the same under attack, by rising eps.
        baseline: how the deployed runtime answered the unattacked clips.
        checks: what the policy asked for, and what was found.
        versions: of what ran the audit.
        plan_sha256: of the bytes of plan.json, which was written before the first attack; None: of hardroute 0.1.
        report_sha256: of the bytes of report.json.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    created: _Text
    bundle: CertifiedBundle
    policy: CertifiedPolicy
    data: CertifiedData
    threat_model: dict[_Text, _Text] = Field(max_length=_MANY)
    attacks: tuple[_Text, ...] = Field(max_length=_MANY)
    sources: dict[_Text, CertifiedSource] | None = Field(max_length=_MANY)
    clean_accuracy: Accuracy
    robust_accuracy: tuple[RobustAccuracy, ...] = Field(max_length=_MANY)
    baseline: Baseline
    checks: tuple[CertifiedCheck, ...] = Field(max_length=_MANY)
    versions: dict[_Text, _Text] = Field(max_length=_MANY)
    plan_sha256: Sha256 | None = None
    report_sha256: Sha256

    @classmethod
    def parse(cls, data: bytes, digest: str, manifest: Manifest) -> Certificate:
        """Reads the bytes of `certificate.json` and compares it with the bundle that it lies in.

        Raises:
            BundleError: not JSON, another schema version, a field that breaks the schema, or of another bundle.
        """
        try:
            require_version(
                data, "certificate.json", SCHEMA_VERSION, "audit the bundle again and attach its certificate"
            )
            found = cls.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(f"certificate.json: {first_error(error)}") from None
        if found.bundle.digest != digest:
            raise BundleError(
                f"certificate.json is of another bundle, {found.bundle.digest[:12]}..., not of this one, "
                f"{digest[:12]}...; audit this one and attach its certificate"
            )
        for what, there, here in (
            ("experts", found.baseline.experts, manifest.experts),
            ("labels", found.baseline.labels, manifest.classes),
        ):
            if len(there) != len(here):
                raise BundleError(
                    f"certificate.json: baseline: {len(there)} {what}, the bundle has {len(here)}; "
                    "audit it again and attach its certificate"
                )
        return found

    def to_bytes(self) -> bytes:
        """The bytes of `certificate.json`, as `parse` reads them."""
        # What an earlier certificate lacks, it goes on lacking: its bytes say what its audit said.
        said = {"schema_version": self.schema_version, **self.model_dump(mode="json", exclude_unset=True)}
        return (json.dumps(said, indent=2, allow_nan=False) + "\n").encode()

    @property
    def headline(self) -> str:
        """One line: what was certified, when, and at which accuracy."""
        robust = ", ".join(f"{at.share:.1%} at eps {at.eps_255:g}/255" for at in self.robust_accuracy if at.decides)
        return (
            f"{self.policy.called} passed on {self.data.clips} clips of {self.data.name} "
            f"({self.created[:10]}): clean {self.clean_accuracy.share:.1%}, worst case {robust or 'not asked for'}"
        )
