"""`python -m omnifleet`, the same as `omnifleet`."""

from .cli.app import main

main()
