"""What tests share: real servers, worker processes, scripted engines and the data that they are fed."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
"""The folder of the tests, from which `support` is imported: processes that load it need it on their PYTHONPATH."""
ROOT = TESTS.parent
"""The folder of the project."""
