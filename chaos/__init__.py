"""A fleet under random faults: every job that was submitted must have exactly one right outcome all the same."""

import sys
from pathlib import Path

# The servers, proxies and scripted worker processes are those of the tests: a second set would drift from them.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
