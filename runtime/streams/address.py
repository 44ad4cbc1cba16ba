"""Network addresses: which are opened, where they may be kept, and how much of one may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hardroute.runtime.errors import ClipError

SCHEMES: Final = ("rtsp", "rtsps", "http", "https")
_HIDDEN: Final = "..."
# What people write before two slashes, one, or none that they meant to write.
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{0,15})(?::/*|//+)")
_AT: Final = re.compile(r"@|%40", re.IGNORECASE)
# Cameras take user and password in the path too, and a slash or a percent sign may be a part of them.
_SECRET: Final = re.compile(
    r"((?:\b|_|-)[a-z0-9_-]*(?:user|usr|login|pass|pw|token|key|auth|secret|sign|sid)[a-z0-9_-]*)(=|%3d|:(?!/))[^&;]*",
    re.IGNORECASE,
)
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]\\]+)(?::\d{1,5})?\Z")
_MOST_BYTES: Final = 1 << 20


def showable(address: str) -> str:
    """An address without what may be secret, also one that was mistyped.

    Left out are all before the last `@`, query and fragment, and what stands after `user=`, `password=`, `token=`,
    `key=` and the like. What does not look like a host then is not shown at all: a password may have ended up there.

    >>> showable("rtsp://admin:p/w#1@door:554/live?token=x"), showable("rtsp:/admin:p@ss@door/live")
    ('rtsp://door:554/live', 'rtsp://door/live')
    """
    found = _SCHEME.match(address)
    scheme, rest = (found[1].lower(), address[found.end() :]) if found else ("", address)
    rest = _AT.split(rest)[-1]
    rest = _SECRET.sub(rf"\1\2{_HIDDEN}", rest.strip())
    rest = re.split(r"[?#]|%3f|%23", rest, maxsplit=1, flags=re.IGNORECASE)[0]
    host, slash, path = rest.partition("/")
    if not _HOST.match(host):
        host, slash, path = _HIDDEN, "", ""
    shown = f"{host}{slash}{path}"
    return f"{scheme}://{shown}" if found else shown


def looks_like_address(text: str) -> bool:
    """Whether a source's name may hold a password: it has a scheme, of a network or mistyped, or a user."""
    found = _SCHEME.match(text)
    return bool(found and found[1].lower() != "file") or bool(_AT.search(text))


def check_url(url: str) -> str:
    """The URL, if it can be opened. Raises ClipError, which shows no more of it than `showable` does."""
    name = showable(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ClipError(f"{name}: this URL cannot be read; write it as rtsp://HOST:PORT/PATH") from None
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise ClipError(f"{name}: the scheme {scheme!r} is not opened here; known: {known}")
    if not host or any(character.isspace() or not character.isprintable() for character in url):
        raise ClipError(f"{name}: not a URL with a host and without blanks; write it as rtsp://HOST:PORT/PATH")
    return url


def spelled_out(spec: str) -> list[str]:
    """The sources that a word of a command line stands for, so that no address need stand on one.

    `@FILE`: the lines of a file, without empty ones and those that begin with `#`. `env:NAME`: what that environment
    variable holds, likewise. Anything else: itself.

    Raises:
        ClipError: there is no such file or variable, or nothing in it.
    """
    if spec.startswith("@"):
        path = Path(spec[1:])
        try:
            with open(path, "rb") as file:
                text = file.read(_MOST_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ClipError(f"{path}: the file of sources cannot be read ({reason}); check the path") from None
        where = str(path)
    elif spec.startswith("env:"):
        where = f"the environment variable {spec[4:]}"
        text = os.environ.get(spec[4:], "")
    else:
        return [spec]
    lines = [line.strip() for line in text.splitlines()]
    sources = [line for line in lines if line and not line.startswith("#")]
    if not sources:
        raise ClipError(f"{where}: no source in it; write one a line")
    return sources
