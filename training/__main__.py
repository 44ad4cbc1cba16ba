"""`python -m training` in a checkout."""

from hardroute.cli import main

main("training")
