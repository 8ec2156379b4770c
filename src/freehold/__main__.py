"""`python -m freehold`: the same as the installed command."""

from freehold.cli import main

main()
