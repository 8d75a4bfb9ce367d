"""What tests share: real servers, worker processes, scripted engines and the data that they are fed."""

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]
"""The folder of the tests, from which `support` is imported: see `PYTHONPATH`."""
ROOT = TESTS.parent
"""The folder of the project."""
PYTHONPATH = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
"""For processes that load `support`: the folder of the tests before what this process was started with."""
