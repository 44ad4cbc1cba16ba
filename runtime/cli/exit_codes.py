"""The one place where an error becomes a line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from hardroute.runtime.errors import HardrouteError

EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130


def main(app: Callable[[], object]) -> NoReturn:
    """Runs a command line and exits.

    With 2 and one `error:` line on stderr after a `HardrouteError` or on a full disk, with 130 after Ctrl-C. Anything
    else is a bug and keeps its traceback.
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
