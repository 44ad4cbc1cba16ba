"""The two ways to send a video: as the body itself, or as the one file of a form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from hardroute.runtime.service.refusal import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS: Final = 16


class Body(Protocol):
    """Finds the video's bytes in the body's bytes, as they come.

    name: what the client calls the video, as sent; empty until or unless it says.
    """

    name: str

    def feed(self, chunk: bytes) -> list[bytes]:
        """The video's bytes in the next chunk of the body."""
        ...

    def finish(self) -> None:
        """The body has ended; raises Refusal if that was too early."""
        ...


class RawBody:
    """Every byte is the video's."""

    name = ""

    def feed(self, chunk: bytes) -> list[bytes]:
        return [chunk] if chunk else []

    def finish(self) -> None:
        pass


class FormBody:
    """`multipart/form-data` with one file; its other fields are passed over.

    Raises:
        Refusal: 400 where the form is broken, has several files or none.
    """

    def __init__(self, boundary: bytes) -> None:
        self.name = ""
        self._found: list[bytes] = []
        self._parts = self._files = 0
        self._in_file = False
        self._ended = False
        self._header, self._value, self._disposition = b"", b"", b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }
        # The library bounds the headers of each part, so that nothing here grows with the body.
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, chunk: bytes) -> list[bytes]:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Refusal(400, "the form is broken; send it as multipart/form-data with one file") from None
        found, self._found = self._found, []
        return found

    def finish(self) -> None:
        if not self._ended:
            raise Refusal(400, "the form ends too early")
        if not self._files:
            raise Refusal(400, "the form has no file; send the video as a file, not as a text field")

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refusal(400, f"the form has more than {MAX_PARTS} parts; send one file")
        self._disposition, self._in_file = b"", False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            return
        self._files += 1
        if self._files > 1:
            raise Refusal(400, "the form has several files; send one video per request")
        self._in_file = True
        self.name = options[b"filename"].decode("utf-8", errors="replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._found.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


def open_body(request: Request) -> Body:
    """Chooses by the content type.

    Raises:
        Refusal: 415 for any other type, 400 for a form without boundary.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        try:
            return FormBody(options[b"boundary"])
        except (KeyError, FormParserError):
            raise Refusal(400, "the form's content type has no usable boundary") from None
    if kind.startswith(b"video/") or kind == b"application/octet-stream":
        return RawBody()
    raise Refusal(415, "send the video as the body (content type video/*) or as the file of a multipart/form-data form")
