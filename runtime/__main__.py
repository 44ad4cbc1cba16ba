"""`python -m runtime` in a checkout."""

from hardroute.cli import main

main("runtime")
