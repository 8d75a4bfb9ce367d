"""`python -m omnifleet_worker`, the same as `omnifleet-worker`."""

from .cli import main

main()
