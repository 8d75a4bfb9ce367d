"""What `import omnifleet` offers, and what it must not load."""

from __future__ import annotations

import inspect
import subprocess
import sys

import omnifleet
import pytest
from omnifleet_shared.errors import error_classes


def test_all_lists_every_public_name_and_nothing_else() -> None:
    public = {
        name for name, value in vars(omnifleet).items() if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert public - {"annotations", "version"} == set(omnifleet.__all__) - {"__version__"}
    assert omnifleet.__all__ == sorted(omnifleet.__all__)


def test_every_error_of_the_contract_is_exported() -> None:
    assert set(error_classes()) <= set(omnifleet.__all__)


@pytest.mark.parametrize("module", ["omnifleet", "omnifleet.cli"])
def test_importing_loads_neither_the_worker_nor_its_libraries(module: str) -> None:
    heavy = ("torch", "omnifleet_worker", "boto3", "numpy", "soundfile", "transformers")
    program = f"import sys, {module}; print(*[name for name in {heavy} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []
