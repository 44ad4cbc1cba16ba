"""The manifest of a bundle: what the runtime believes about a bundle before it opens another file of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import parse_json

SCHEMA_VERSION: Final = 1
MAX_EXPERTS: Final = 64
MAX_CLASSES: Final = 10_000
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


def _plain_name(name: str) -> str:
    # One flat folder: without separators and leading dots a name cannot point anywhere else on any platform.
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is not a plain file name inside the bundle (letters, digits, . _ -)")
    return name


def require_printable(text: str) -> str:
    """The text; raises ValueError if it holds control characters, or such as change the order of those around them."""
    # Names reach terminals and logs; an escape sequence in them must not. `isprintable` knows the latter ones, too.
    if not text.isprintable():
        raise ValueError(f"{text[:80]!r} holds control characters")
    return text


def _tidy(text: str) -> str:
    if text != " ".join(text.split()):
        raise ValueError(f"{text[:80]!r} has blanks that do not show")
    return require_printable(text)


def look(name: str) -> str:
    """What a person sees of a name: two that have the same look are told apart by programs only.

    >>> look("Ｃat") == look("cat")
    True
    """
    # Twice, for folding may leave what is not normal.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] not in "ZC")


FileName = Annotated[str, AfterValidator(_plain_name)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_tidy)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expert(_Strict):
    """One expert: its ONNX file, and the kind and width of the network in it."""

    file: FileName
    kind: Name
    width: int = Field(ge=1)


class Twin(_Strict):
    """The PyTorch twin of the network: safetensors weights and the JSON that says how to build it."""

    weights: FileName
    config: FileName


class Manifest(_Strict):
    """`manifest.json`, schema version 1.

    Attributes:
        name: what the bundle is called.
        classes: the K labels in the order of the logits.
        contract: how a video becomes the network's input.
        precision: of the weights and the arithmetic in the ONNX files.
        router: ONNX file: `clip` (N, 3, T, H, W) float32 in [0, 1] -> `router_logits` (N, M).
        experts: M of them; ONNX: `clip` -> `logits` (N, K).
        single: ONNX file with routing inside the graph, or None.
        twin: the same network for PyTorch, or None in a bundle that is only to be served.
        probes: see `hardroute.runtime.bundle.probes`.
        training_clips: see `hardroute.runtime.bundle.training_clips`; None where nothing says what it was trained on.
        tolerance: largest absolute difference of a logit from its probe that still counts as equal.
        files: SHA-256 of every other file of the bundle.
        tools: versions of what made the bundle.
        training: free-form summary.
    """

    schema_version: Literal[1]
    name: Name
    classes: tuple[Name, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    contract: ClipContract
    precision: Literal["fp32", "fp16"]
    router: FileName
    experts: tuple[Expert, ...] = Field(min_length=1, max_length=MAX_EXPERTS)
    single: FileName | None = None
    twin: Twin | None = None
    probes: FileName
    training_clips: FileName | None = None
    tolerance: float = Field(gt=0, le=1, allow_inf_nan=False)
    files: dict[FileName, Sha256] = Field(max_length=256)
    tools: dict[str, str] = {}
    training: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        seen: dict[str, str] = {}
        for name in self.classes:
            if (other := seen.get(look(name))) is not None:
                alike = f"{other[:80]!r} and {name[:80]!r} look alike"
                raise ValueError("classes: a class is named twice" if other == name else f"classes: {alike}")
            seen[look(name)] = name
        named = [self.router, *(expert.file for expert in self.experts), self.probes]
        named += [name for name in (self.single, self.training_clips) if name]
        named += [self.twin.weights, self.twin.config] if self.twin else []
        for name in named:
            if name not in self.files:
                raise ValueError(f"files: no digest for {name}")
            if named.count(name) > 1:
                raise ValueError(f"{name} is named for two purposes")
        return self

    @property
    def networks(self) -> tuple[str, ...]:
        """The files that serving loads: the router's, then the experts'."""
        return (self.router, *(expert.file for expert in self.experts))

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Reads the bytes of `manifest.json`.

        Raises:
            BundleError: not JSON, another schema version, or a field that breaks the schema (the first).
        """
        try:
            # The version is judged alone: a later schema has other fields, and they are not what is wrong.
            mend = "use the hardroute version that exported the bundle, or export it again"
            require_version(data, "manifest.json", SCHEMA_VERSION, mend)
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(f"manifest.json: {first_error(error)}") from None

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Manifest:
        """Like `parse`, from Python values."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise BundleError(f"manifest: {first_error(error)}") from None


class _Version(BaseModel):
    """Nothing but the schema version, whatever it is."""

    schema_version: JsonValue


def require_version(data: bytes, name: str, reads: int, mend: str) -> None:
    """Raises BundleError, which ends in `mend`, unless `data` of the file `name` is JSON of the version `reads`."""
    try:
        parse_json(data)
    except ValueError as error:
        raise BundleError(f"{name}: Invalid JSON: {error}") from None
    version = _Version.model_validate_json(data).schema_version
    if version != reads:
        raise BundleError(f"{name} has schema version {version!r:.40}, this runtime reads {reads}; {mend}")


def first_error(error: ValidationError) -> str:
    """The first thing that broke a schema: where, and what is wrong there; without the hostile value."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    return f"{where}: {first['msg']}" if where else str(first["msg"])
