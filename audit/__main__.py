"""`python -m audit` in a checkout."""

from hardroute.cli import main

main("audit")
