"""`python -m hardroute`."""

from hardroute.cli import main

main()
