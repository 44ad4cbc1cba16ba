"""What an audit must show before a bundle may be served: thresholds, fixed and hashed before the run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hardroute.runtime.errors import PolicyError
from hardroute.runtime.files import TooLargeError, printable, read_regular

SHIPPED = Path(__file__).parent / "policies"
MAX_BYTES: Final = 64 << 10

Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
# Whole 1/255 steps: the box around an 8-bit clip then ends on 8-bit values, so replay loses nothing there.
Eps255 = Annotated[int, Field(strict=True, ge=0, le=255)]
# Strict: TOML tells numbers from texts and truth values, and a threshold that is not a number is a mistake.
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Section):
    """Which clips are audited."""

    split: str = Field(description="name of the split in the set, such as 'test'")
    clips: Count = Field(description="whole number >= 1: at most this many clips, class-balanced")
    seed: Seed = Field(description="whole number >= 0: chooses the clips")


class Attacks(_Section):
    """What they are attacked with. L-inf budgets, in 1/255 of the pixel range."""

    suite: str = Field(description="name of a suite of attacks")
    eps: tuple[Eps255, ...] = Field(min_length=1, description="rising list of whole 1/255 steps, as [2, 4, 8]")
    gate_eps: Eps255 = Field(description="the eps (one of attacks.eps) that robust_accuracy is asked at")
    steps: Count = Field(description="whole number >= 1: iterations of each attack")
    seed: Seed = Field(description="whole number >= 0: random starts")


class Thresholds(_Section):
    """Shares in [0, 1]; the two accuracies are compared with the lower end of a 95 % Wilson interval."""

    clean_accuracy: Share = Field(description="share in [0, 1]")
    robust_accuracy: Share = Field(description="share in [0, 1]: worst case per clip at attacks.gate_eps")
    min_load_entropy: Share = Field(description="share of log M in [0, 1]: refuses a collapsed router")
    min_agreement: Share = Field(
        description="share in [0, 1]: clips with equal label and route in the deployed runtime and the twin"
    )
    max_dead_gradients: Share = Field(
        default=0.05, description="share in [0, 1]: clips whose loss has a zero or non-finite gradient"
    )
    min_second_choice: Share | None = Field(
        default=None,
        description="share in [0, 1]: the weakest expert on clips that it is the router's second choice for, lower "
        "end of the interval; left out, chance (1 / number of classes)",
    )


class Policy(_Section):
    """An audit policy, read from TOML.

    >>> Policy.load("standard").attacks.gate_eps
    8
    """

    schema_version: Literal[1] = Field(description="1")
    name: str = Field(min_length=1, max_length=100, description="a name of 1 to 100 characters")
    data: Data = Field(description="a table [data]")
    attacks: Attacks = Field(description="a table [attacks]")
    thresholds: Thresholds = Field(description="a table [thresholds]")

    @field_validator("schema_version", mode="before")
    @classmethod
    def _a_number(cls, version: object) -> object:
        # true equals 1, and would pass for it.
        if isinstance(version, bool):
            raise ValueError(f"schema_version: got {str(version).lower()}; needs 1")
        return version

    @field_validator("name")
    @classmethod
    def _in_plain_text(cls, name: str) -> str:
        # It is told on terminals and pages, inside quotation marks.
        if not name.isprintable() or '"' in name:
            raise ValueError(f"name: {printable(name)!r} holds a character that cannot be shown, or a quotation mark")
        return name

    @model_validator(mode="after")
    def _eps_in_order(self) -> Policy:
        eps = self.attacks.eps
        if list(eps) != sorted(set(eps)):
            raise ValueError("attacks.eps: list each eps once, rising, as [2, 4, 8]")
        if self.attacks.gate_eps not in eps:
            raise ValueError(f"attacks.gate_eps: {self.attacks.gate_eps} is not in attacks.eps; add it there")
        return self

    @field_validator("attacks")
    @classmethod
    def _known_suite(cls, attacks: Attacks) -> Attacks:
        # Imported here: the attacks bring torch, which a policy with a spelling mistake need not wait for.
        from hardroute.audit.attacks import SUITES

        if attacks.suite not in SUITES:
            raise ValueError(f"attacks.suite: unknown suite '{attacks.suite}'; choose one of {', '.join(SUITES)}")
        return attacks

    @property
    def custom(self) -> bool:
        """Whether it is other than the shipped policy of its name, or bears no shipped name at all."""
        return self.name not in shipped() or self != _read(self.name)

    @property
    def title(self) -> str:
        """What verdict, report, page and certificate call it: `policy "standard"`, or `custom policy "mine"`."""
        return f'{"custom " if self.custom else ""}policy "{self.name}"'

    @classmethod
    def load(cls, spec: str | Path) -> Policy:
        """From the name of a shipped policy ("standard", "quick") or a TOML file.

        A shipped name wins over a file; write ./NAME for the file. Raises PolicyError, in one line that
        names the file, the field and how to mend it. A file that bears the name of a shipped policy is refused
        unless it is that policy.
        """
        policy = _read(spec)
        if policy.custom and policy.name in shipped():
            raise PolicyError(
                f"policy {spec}: name: {policy.name!r} is kept for the policy of that name that is shipped, and this "
                "one asks for something else; give it a name of its own"
            )
        return policy


def _read(spec: str | Path) -> Policy:
    path = SHIPPED / f"{spec}.toml" if str(spec) in shipped() else Path(spec)
    mend = f"give a TOML file or one of {', '.join(shipped())}"
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise PolicyError(f"policy {spec}: cannot be read ({error.strerror or error}); {mend}") from error
    except TooLargeError:
        raise PolicyError(f"policy {path}: larger than {MAX_BYTES >> 10} KiB, which no policy is; {mend}") from None
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"policy {path}: not valid TOML: {error}") from error
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise PolicyError(f"policy {path}: {_explain(error)}") from error


def shipped() -> tuple[str, ...]:
    """Names of the policies that come with hardroute."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def _explain(error: ValidationError) -> str:
    """The first thing wrong, as `field: what; how to mend it`."""
    found = error.errors(include_url=False)
    # A misspelt field is also a missing one; the misspelling is the cause.
    first = min(found, key=lambda each: each["type"] != "extra_forbidden")
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    names = [part for part in first["loc"] if isinstance(part, str)]
    section, field = _describe(names)
    if first["type"] == "extra_forbidden":
        return f"{'.'.join(names)}: no such field; known here: {', '.join(section.model_fields)}"
    wanted = f"; needs {field.description}" if field is not None else ""
    if first["type"] == "missing":
        return f"{'.'.join(names)}: missing{wanted}"
    return f"{'.'.join(names)}: {first['msg']}, got {_short(first['input'])}{wanted}"


def _describe(names: list[str]) -> tuple[type[BaseModel], Any]:
    section: type[BaseModel] = Policy
    for name in names[:-1]:
        inner = section.model_fields[name].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
    return section, section.model_fields.get(names[-1]) if names else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
