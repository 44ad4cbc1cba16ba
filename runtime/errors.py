"""Errors that a person can mend, and the one place that turns them into an exit code.

Everything a user can get wrong (a broken video, a tampered bundle, an unknown method) is raised as a
`HardrouteError` whose text is one line: what, where, how to mend it. Anything else is a bug and keeps its
traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class HardrouteError(Exception):
    """A user's mistake or hostile input: one line, exit code 2."""

    def __str__(self) -> str:
        # File names and manifest cells end up in messages; a newline or an escape code in them must not forge
        # further lines on a terminal or in a log.
        text = " ".join(super().__str__().split())
        return "".join(c if c.isprintable() else "?" for c in text)


class ClipError(HardrouteError):
    """A video cannot be used."""


class DataError(HardrouteError):
    """A labelled set cannot be used."""


class BundleError(HardrouteError):
    """A bundle is broken, tampered with or of another schema."""


class BackendError(HardrouteError):
    """The asked-for execution provider cannot run here."""


class EngineError(HardrouteError, RuntimeError):
    """An engine that cannot answer any more: closed, or loaded before a fork."""


class BusyError(HardrouteError):
    """As much is under way as was allowed; the same request may be taken later."""


class PolicyError(HardrouteError):
    """An audit policy cannot be used."""


class AuditError(HardrouteError):
    """An audit broke for reasons of its own: what it was given is neither bad nor judged."""


class MethodError(HardrouteError):
    """An unknown method, attack or expert; the message lists the known ones."""


def main(app: Callable[[], object]) -> NoReturn:
    """Run a command line and exit: 2 with one `error:` line on stderr for a `HardrouteError` or a full disk, 130 after
    Ctrl-C.
    """
    try:
        app()
    except HardrouteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "what is printed or written"
        print(f"error: {HardrouteError(f'{where}: {error.strerror}; make room and run it again')}", file=sys.stderr)
        # What is still in the buffer would fail once more when Python ends, with words and an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)
