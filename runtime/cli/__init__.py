"""The commands that need no more than `runtime`, and what all commands end with."""

from hardroute.runtime.cli.exit_codes import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main

__all__ = ["EXIT_BAD_INPUT", "EXIT_INTERRUPTED", "main"]
