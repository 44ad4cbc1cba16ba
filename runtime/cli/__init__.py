"""The commands that need no more than `runtime`, and what all commands end with."""

from hardroute.runtime.cli.exit_codes import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main
from hardroute.runtime.cli.trust_file import TrustFile, load_trust

__all__ = ["EXIT_BAD_INPUT", "EXIT_INTERRUPTED", "TrustFile", "load_trust", "main"]
