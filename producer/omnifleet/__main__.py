"""`python -m omnifleet`, the same as `omnifleet`."""

from .cli import main

main()
