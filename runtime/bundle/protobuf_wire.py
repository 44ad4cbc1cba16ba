"""Protobuf's wire format, field by field, without a schema: https://protobuf.dev/programming-guides/encoding/"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SIGN: Final = 1 << 63


def fields(view: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields (field number, wire type, value) of one protobuf message."""
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        if key > 0xFFFFFFFF:
            # protobuf drops the upper bits, so such a key would mean another field there than here.
            raise ValueError(f"field key too long at byte {position}")
        field, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == VARINT:
            value, position = _varint(view, position)
        else:
            if wire == BYTES:
                length, position = _varint(view, position)
            elif wire in (FIXED64, FIXED32):
                length = 8 if wire == FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire} at byte {position}")
            if length > len(view) - position:
                raise ValueError("truncated")
            value, position = view[position : position + length], position + length
        yield field, wire, value


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"number too long at byte {position}")


def varints(view: memoryview) -> list[int]:
    """The numbers of a packed repeated field, signed (int64)."""
    found, position = [], 0
    while position < len(view):
        value, position = _varint(view, position)
        found.append(signed(value))
    return found


def signed(value: int) -> int:
    """A varint as an int64 field means it."""
    value &= 2 * _SIGN - 1
    return value - 2 * _SIGN if value >= _SIGN else value
