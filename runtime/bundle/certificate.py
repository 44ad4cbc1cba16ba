"""`certificate.json`: what a passed audit vouches for, as far as serving needs to know it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.bundle.manifest import Manifest, Name, Sha256, first_error, printable, require_version
from hardroute.runtime.errors import BundleError

SCHEMA_VERSION: Final = 2
_Text = Annotated[str, Field(max_length=4096), AfterValidator(printable)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Part(BaseModel):
    # What only people read (threat model, checks, versions) may be there and is not looked at.
    model_config = ConfigDict(frozen=True, extra="ignore")


class CertifiedBundle(_Part):
    """Which bundle was audited."""

    name: Name
    digest: Sha256


class _PolicyContent(_Part):
    name: _Text


class CertifiedPolicy(_Part):
    """Which policy it passed."""

    digest: Sha256
    content: _PolicyContent


class CertifiedData(_Part):
    """Which clips it was audited on."""

    name: _Text
    split: _Text
    clips: int = Field(ge=1)


class Accuracy(_Part):
    """A share of the clips, and its 95 % interval."""

    share: _Share
    low: _Share
    high: _Share


class RobustAccuracy(Accuracy):
    """Worst case per clip over all attacks at eps (L-inf, in 1/255); `decides`: the policy asked for this one."""

    eps_255: float = Field(ge=0, le=255)
    decides: bool


class Certificate(_Part):
    """`certificate.json`, schema version 2. It is not signed: whoever can write the bundle can write it.

    Attributes:
        created: when, UTC, ISO 8601.
        bundle: which bundle was audited.
        policy: which policy it passed.
        data: on which clips.
        clean_accuracy: of the unattacked clips, right in the PyTorch twin and in the runtime.
        robust_accuracy: the same under attack, by rising eps.
        baseline: how the deployed runtime answered the unattacked clips.
    """

    schema_version: Literal[2]
    created: _Text
    bundle: CertifiedBundle
    policy: CertifiedPolicy
    data: CertifiedData
    clean_accuracy: Accuracy
    robust_accuracy: tuple[RobustAccuracy, ...] = Field(max_length=256)
    baseline: Baseline

    @classmethod
    def parse(cls, data: bytes, digest: str, manifest: Manifest) -> Certificate:
        """Reads the bytes of `certificate.json` and compares it with the bundle that it lies in.

        Raises:
            BundleError: not JSON, another schema version, a field that breaks the schema, or of another bundle.
        """
        try:
            require_version(data, "certificate.json", SCHEMA_VERSION, "audit the bundle again with --attach")
            found = cls.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(f"certificate.json: {first_error(error)}") from None
        if found.bundle.digest != digest:
            raise BundleError(
                f"certificate.json is of another bundle, {found.bundle.digest[:12]}..., not of this one, "
                f"{digest[:12]}...; audit this one with --attach"
            )
        for what, there, here in (
            ("experts", found.baseline.experts, manifest.experts),
            ("labels", found.baseline.labels, manifest.classes),
        ):
            if len(there) != len(here):
                raise BundleError(
                    f"certificate.json: baseline: {len(there)} {what}, the bundle has {len(here)}; "
                    "audit it again with --attach"
                )
        return found

    @property
    def headline(self) -> str:
        """One line: what was certified, when, and at which accuracy."""
        robust = ", ".join(f"{at.share:.1%} at eps {at.eps_255:g}/255" for at in self.robust_accuracy if at.decides)
        return (
            f"policy {self.policy.content.name!r} passed on {self.data.clips} clips of {self.data.name} "
            f"({self.created[:10]}): clean {self.clean_accuracy.share:.1%}, worst case {robust or 'not asked for'}"
        )
