"""What is installed stands in `locks/`: every library by version and hash, from whatever index, and bounds are true."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPTIONAL: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
EXTRAS = {
    "demo": ["demo"],
    "dev": list(OPTIONAL),
    "docs": ["docs"],
    "gateway": ["gateway", "otel"],
    "lowest": ["test"],
    "producer": ["flower", "otel"],
    "voices": ["voxcpm", "omnivoice", "otel"],
    "worker": ["worker", "otel"],
}
HASH = r"--hash=sha256:[0-9a-f]{64}"
LOCKED = re.compile(rf"(?P<name>[\w.-]+)==(?P<version>[\w.+!]+)(?: ; [^\\]+)?((?: \\\n    {HASH})+)\n")


def declared(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, with the extras of ours that it names."""
    for requirement in map(Requirement, OPTIONAL[extra]):
        if requirement.name != PROJECT["project"]["name"]:
            yield requirement
        for named in requirement.extras if requirement.name == PROJECT["project"]["name"] else ():
            yield from declared(named)


def wanted(lock: str) -> list[Requirement]:
    if lock == "build":
        return [*map(Requirement, PROJECT["dependency-groups"]["build"] + PROJECT["build-system"]["requires"])]
    always = map(Requirement, PROJECT["project"]["dependencies"])
    return [*always, *(requirement for extra in EXTRAS[lock] for requirement in declared(extra))]


def versions(lock: str) -> dict[str, set[Version]]:
    """By name; more than one where it depends on the platform or on Python."""
    found: dict[str, set[Version]] = {}
    for match in LOCKED.finditer((ROOT / f"locks/{lock}.txt").read_text()):
        found.setdefault(match["name"], set()).add(Version(match["version"]))
    return found


@pytest.mark.parametrize("lock", ["build", *EXTRAS])
def test_every_requirement_is_locked_within_its_bounds(lock: str) -> None:
    locked = versions(lock)

    for requirement in wanted(lock):
        assert requirement.name in locked, f"{requirement}: make locks"
        assert all(version in requirement.specifier for version in locked[requirement.name]), (
            f"{requirement}: make locks"
        )


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_is_versions_with_hashes_and_nothing_else(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#")]

    assert lines
    assert LOCKED.sub("", "".join(lines)) == ""


def test_every_lock_is_held_by_these_tests() -> None:
    assert {path.stem for path in LOCKS} == {"build", *EXTRAS}


@pytest.mark.parametrize("lock", ["build", "demo", "docs", "gateway", "producer", "voices", "worker"])
def test_locks_agree_with_each_other(lock: str) -> None:
    dev = versions("dev")

    assert {name: found for name, found in versions(lock).items() if not found <= dev.get(name, found)} == {}


def test_lower_bounds_are_what_the_lowest_tests_run_on() -> None:
    locked = versions("lowest")

    for requirement in wanted("lowest"):
        bounds = {Version(one.version) for one in requirement.specifier if one.operator in (">=", "==")}
        assert bounds == locked[requirement.name], f"{requirement}: nothing lower is tested; raise it"


@pytest.mark.parametrize("folder", ["examples/node", "tests/support/gateway/openai_node"])
def test_a_lock_of_another_language_names_no_host(folder: str) -> None:
    lock = (ROOT / folder / "package-lock.json").read_text()

    assert '"resolved"' not in lock
    assert lock.count('"integrity"') == lock.count('"node_modules/')
