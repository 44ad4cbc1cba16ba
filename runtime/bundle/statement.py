"""What a certificate says as an in-toto statement (v1, test-result v0.1), for readers that know nothing of hardroute.

https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md has the format.
"""

from __future__ import annotations

import json
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hardroute.runtime.bundle.certificate import Certificate
from hardroute.runtime.bundle.manifest import Sha256, first_error
from hardroute.runtime.bundle.sealed_files import CERTIFICATE, MANIFEST
from hardroute.runtime.errors import TrustError
from hardroute.runtime.files import parse_json

STATEMENT: Final = "https://in-toto.io/Statement/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
_MANY: Final = 256


class _Part(BaseModel):
    # in-toto has readers skip fields that they do not know.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


class _Digests(_Part):
    sha256: Sha256


class Resource(_Part):
    """Something that has a name and a digest."""

    name: str = Field(max_length=4096)
    digest: _Digests


class TestResult(_Part):
    """The predicate: what was tested, against what, and how it ended."""

    __test__ = False  # pytest looks for classes of this name

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: list[Resource] = Field(max_length=_MANY)
    passedTests: list[str] = Field(max_length=_MANY)
    warnedTests: list[str] = Field(max_length=_MANY)
    failedTests: list[str] = Field(max_length=_MANY)


class Statement(_Part):
    """That the subjects, a manifest and its certificate, passed an audit.

    Manifest and certificate are subjects together, so that neither, nor the baseline in the certificate, can be
    replaced alone.
    """

    type: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT, alias="_type")
    subject: list[Resource] = Field(max_length=_MANY)
    predicateType: Literal["https://in-toto.io/attestation/test-result/v0.1"] = TEST_RESULT
    predicate: TestResult

    @classmethod
    def of(cls, digest: str, certificate_digest: str, certificate: Certificate) -> Statement:
        """The statement for a bundle's digest, its certificate's, and what is in that."""
        policy, data = certificate.policy, certificate.data
        tested = {f"policy {policy.content.name}": policy.digest, f"clips {data.name} {data.split}": data.digest}
        tested["report.json"] = certificate.report_sha256
        failed = [check.name for check in certificate.checks if not check.passed]
        return cls(
            subject=[_resource(MANIFEST, digest), _resource(CERTIFICATE, certificate_digest)],
            predicate=TestResult(
                result="FAILED" if failed else "PASSED",
                configuration=[_resource(name, found) for name, found in tested.items()],
                passedTests=[check.name for check in certificate.checks if check.passed],
                warnedTests=[],
                failedTests=failed,
            ),
        )

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Reads a statement.

        Raises:
            TrustError: not JSON, or a statement of another kind or form.
        """
        try:
            return cls.model_validate(parse_json(data))
        except ValidationError as error:
            raise TrustError(f"statement: {first_error(error)}") from None
        except ValueError as error:
            raise TrustError(f"statement: {error}") from None

    def require_about(self, digest: str, certificate_digest: str) -> None:
        """Raises TrustError unless it says that this manifest and this certificate passed, and nothing else."""
        found = {each.name: each.digest.sha256 for each in self.subject}
        if found.keys() != {MANIFEST, CERTIFICATE} or len(self.subject) != len(found):
            raise TrustError(f"the statement is not about {MANIFEST} and {CERTIFICATE}, and those alone")
        for name, wanted in ((MANIFEST, digest), (CERTIFICATE, certificate_digest)):
            if found[name] != wanted:
                raise TrustError(f"the statement is about another {name}, {found[name][:12]}..., not {wanted[:12]}...")
        if self.predicate.result != "PASSED":
            raise TrustError(f"the statement says {self.predicate.result}, not PASSED")

    def to_bytes(self) -> bytes:
        """The bytes that are signed; the same for the same certificate."""
        return json.dumps(self.model_dump(by_alias=True), sort_keys=True, separators=(",", ":")).encode()


def _resource(name: str, digest: str) -> Resource:
    return Resource(name=name, digest=_Digests(sha256=digest))
