"""How a line holds on to the one before: its number and the hash of that line's bytes."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final, NamedTuple

from hardroute.runtime.errors import LogError
from hardroute.runtime.files import parse_json

#: Bytes of one line, line break included. Nobody writes a longer one, so no reader needs to hold more.
MAX_LINE: Final = 1 << 16
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_MAX_SEQ: Final = 2**63
_START: Final = b'{"seq": '


class Head(NamedTuple):
    """The end of a chain: number and hash of its last line.

    Written as `HASH:SEQ`; whoever keeps that elsewhere can tell later that the log was not cut short.
    """

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.hash}:{self.seq}"

    def after(self, line: bytes) -> Head:
        """The head once `line` (bytes, line break included) has followed, whatever that line says of itself."""
        return Head(self.seq + 1, digest(line))


class MalformedLine(ValueError):
    """Bytes that no writer of this log has written; the text says why."""


def digest(line: bytes) -> str:
    """SHA-256 of a line's bytes, line break included, hex: what `tail -n 1 FILE | sha256sum` prints."""
    return hashlib.sha256(line).hexdigest()


#: Before the first line.
GENESIS: Final = Head(0, "0" * 64)


def seal(body: str, head: Head, marks: dict[str, Any]) -> bytes:
    """The line that carries a record.

    Args:
        body: the record as a JSON object with at least one field.
        head: of the chain so far.
        marks: what the log itself has to say (`lost`, `torn`, `oldest`, `unsynced`).

    Raises:
        LogError: the line would be longer than `MAX_LINE`.
    """
    own = "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in marks.items())
    line = f"{_opening(head.seq + 1, head.hash)}{own}{body[1:]}\n".encode("ascii")
    if len(line) > MAX_LINE:
        raise LogError(f"route log: a record of {len(line)} bytes is too long for a line; {MAX_LINE} fit")
    return line


def parse(line: bytes) -> dict[str, Any]:
    """The fields of a line from anywhere. Raises MalformedLine."""
    if len(line) > MAX_LINE:
        raise MalformedLine(f"is longer than {MAX_LINE} bytes")
    try:
        line.decode("ascii")
        fields = parse_json(line)
    except ValueError:
        raise MalformedLine("is not one JSON object in ASCII") from None
    if not isinstance(fields, dict):
        raise MalformedLine("is not one JSON object in ASCII")
    return fields


def link(line: bytes, fields: dict[str, Any]) -> Head:
    """The line's own number, and the hash that it gives for the line before. Raises MalformedLine."""
    seq, prev = fields.get("seq"), fields.get("prev")
    # `type`, for True is an int as well.
    if type(seq) is not int or not 1 <= seq < _MAX_SEQ:
        raise MalformedLine('has no "seq" (a number from 1)')
    if not isinstance(prev, str) or not _HASH.fullmatch(prev):
        raise MalformedLine('has no "prev" (64 hexadecimal digits)')
    # Byte for byte, so that a reader needs no JSON to follow the chain.
    if not line.startswith(_opening(seq, prev).encode("ascii")):
        raise MalformedLine('does not begin with "seq" and "prev" as the log writes them')
    return Head(seq, prev)


def count_of(fields: dict[str, Any], name: str) -> int:
    """A mark that is a number; 0 where it is absent or nonsense."""
    value = fields.get(name)
    return value if type(value) is int and 0 < value < _MAX_SEQ else 0


def could_be_torn(data: bytes) -> bool:
    """Whether these bytes, without a line break, can be what a crash left of a line."""
    # A power cut may leave zeros where a line was to be.
    return data.startswith(_START) or _START.startswith(data) or not data.strip(b"\0")


def parse_head(text: str) -> tuple[str, int | None]:
    """Reads `HASH` or `HASH:SEQ`. Raises LogError."""
    value, _, seq = text.strip().lower().partition(":")
    if not _HASH.fullmatch(value) or (seq and not re.fullmatch(r"[0-9]{1,18}", seq)):
        raise LogError(f"head {text[:100]!r} is not HASH or HASH:SEQ, as a check of the log prints it")
    return value, int(seq) if seq else None


def _opening(seq: int, prev: str) -> str:
    return f'{{"seq": {seq}, "prev": "{prev}", '
