"""What an index would get: sources without the tests' data, for the versions of Python that are promised."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MEBIBYTE = 2**20


def test_the_source_distribution_holds_the_packages_and_no_test_data(tmp_path: Path) -> None:
    (archive,) = map(Path, SdistBuilder(str(ROOT)).build(directory=str(tmp_path)))
    with tarfile.open(archive) as sources:
        folders = {name.split("/")[1] for name in sources.getnames()}
        unpacked = sum(member.size for member in sources)

    assert {"shared", "producer", "worker", "schemas", "docs", "LICENSE", "README.md"} <= folders
    assert not {"tests", "chaos", "benchmarks", "locks"} & folders
    assert archive.stat().st_size < 2 * MEBIBYTE
    assert unpacked < 8 * MEBIBYTE


def test_the_wheel_holds_all_that_the_gateways_pages_are_made_of(tmp_path: Path) -> None:
    (archive,) = map(Path, WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(archive) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("omnifleet/gateway/page/static/")}

    pages = ROOT / "producer/omnifleet/gateway/page/static"
    assert held == {f"omnifleet/gateway/page/static/{path.name}" for path in pages.iterdir()}
    assert {path.suffix for path in map(Path, held)} == {".css", ".html", ".js", ".svg"}


def test_each_version_of_python_that_is_allowed_is_promised_in_words() -> None:
    allowed = [f"3.{minor}" for minor in range(20) if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])]
    promised = f"Python {allowed[0]} to {allowed[-1]} on Linux"

    assert {f"Programming Language :: Python :: {version}" for version in allowed} <= set(PROJECT["classifiers"])
    assert allowed[-1] == "3.13"
    for page in ("README.md", "CONTRIBUTING.md"):
        assert promised in (ROOT / page).read_text(), page
