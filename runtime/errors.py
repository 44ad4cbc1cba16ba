"""Errors that a person can mend: one tree.

Everything a user can get wrong (a broken video, a tampered bundle, an unknown method) is raised as a
`HardrouteError` whose text is one line: what, where, how to mend it. Anything else is a bug and keeps its
traceback. The text speaks of Python's names; a command adds those of its options.
"""

from __future__ import annotations

from hardroute.runtime.files import printable


class HardrouteError(Exception):
    """A user's mistake or hostile input: one line; a command ends with exit code 2."""

    def __str__(self) -> str:
        # File names and manifest cells end up in messages; a newline or an escape code in them must not forge
        # further lines on a terminal or in a log.
        return printable(super().__str__())


def reason(error: BaseException) -> str:
    """Any exception as one line: a `HardrouteError` in its own words, others with their kind and not without end."""
    if isinstance(error, HardrouteError):
        return str(error)
    # Anybody's code may have raised it, and its line in a routing log must not become too long to be written.
    return printable(f"{type(error).__name__}: {error}")[:1000]


class ClipError(HardrouteError):
    """A video cannot be used."""


class DataError(HardrouteError):
    """A labelled set cannot be used."""


class BundleError(HardrouteError):
    """A bundle is broken, tampered with or of another schema."""


class TrustError(BundleError):
    """A bundle is not one that the given trust accepts, or a trust, a key or a signature cannot be used."""


class BackendError(HardrouteError):
    """The asked-for execution provider cannot run here."""


class EngineError(HardrouteError, RuntimeError):
    """An engine that cannot answer any more: closed, or loaded before a fork."""


class BusyError(HardrouteError):
    """As much is under way as was allowed; the same request may be taken later."""


class LogError(HardrouteError):
    """A routing log cannot be written, or cannot be read."""


class StreamError(HardrouteError):
    """A hub does not take a source, or has none of that name."""


class SettingsError(HardrouteError):
    """A setting that is unknown, or has a value that makes no sense.

    Attributes:
        field: which; empty where it is about several.
        problem: what is wrong with it, in words that follow its name.
    """

    def __init__(self, settings: str, field: str, problem: str) -> None:
        super().__init__(f"{settings}: {field} {problem}" if field else f"{settings}: {problem}")
        self.field, self.problem = field, problem


class PolicyError(HardrouteError):
    """An audit policy cannot be used."""


class AuditError(HardrouteError):
    """An audit broke for reasons of its own: what it was given is neither bad nor judged."""


class MethodError(HardrouteError):
    """An unknown method, attack or expert; the message lists the known ones."""
