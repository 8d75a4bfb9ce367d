"""The shape of the code: imports that form no circle and only go down, and modules and functions of a readable size."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support import ROOT

PACKAGES = {"shared": "omnifleet_shared", "producer": "omnifleet", "worker": "omnifleet_worker"}
ALLOWED = {
    ("omnifleet", "omnifleet_shared"),
    ("omnifleet_worker", "omnifleet_shared"),
    # Imported when it is used: `local()` runs a worker's engine in the caller's process.
    ("omnifleet.local", "omnifleet_worker"),
}
MOST_MODULES_IN_A_FOLDER = 14
MOST_LINES_IN_A_MODULE = 350
MOST_LINES_IN_A_FUNCTION = 60
"""Its docstring not counted."""


@dataclass(frozen=True)
class Module:
    """A module of the three packages."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """The package whose folder it lies in; of an `__init__` the package itself."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def imports(self) -> Iterator[str]:
        """What it imports, for types and inside functions too, as dotted names that may end with an attribute."""
        for node in ast.walk(tree(self.path)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{self._source(node)}.{alias.name}" for alias in node.names)

    def _source(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return str(node.module)
        above = self.package.split(".")[: 1 - node.level or None]
        return ".".join([*above, *([node.module] if node.module else [])])


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def modules() -> dict[str, Module]:
    """The modules of the three packages by their dotted names."""
    found = {}
    for folder in PACKAGES:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path)
    return found


@cache
def imported_modules() -> dict[str, set[str]]:
    """The modules of the three packages that each of them imports."""
    known = modules()
    found = {}
    for module in known.values():
        named = {name if name in known else name.rpartition(".")[0] for name in module.imports()}
        found[module.name] = (named & known.keys()) - {module.name}
    return found


def imported_packages() -> dict[str, set[str]]:
    """The folders that the modules of each folder import from; those above and below it are of the same branch."""
    found: dict[str, set[str]] = defaultdict(set)
    for importer, imported in imported_modules().items():
        here = modules()[importer].package
        there = {modules()[name].package for name in imported}
        found[here] |= {one for one in there if not f"{one}.".startswith(f"{here}.")} - {here}
        found[here] = {one for one in found[here] if not here.startswith(f"{one}.")}
    return found


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle of the graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return lines


class TestTheGraphItself:
    def test_a_circle_is_found(self) -> None:
        assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
        assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}

    def test_relative_absolute_and_lazy_imports_are_seen(self) -> None:
        found = imported_modules()

        assert "omnifleet_shared.keys" in found["omnifleet_shared.broker.leases"]
        assert "omnifleet_shared.schema.base" in found["omnifleet_shared.schema.jobs"]
        assert "omnifleet_worker.local" in found["omnifleet.local"]
        assert len(found) > 100


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imported_modules()) == []


def test_no_folders_import_from_each_other_in_a_circle() -> None:
    assert circle(imported_packages()) == []


def test_imports_only_go_down() -> None:
    found = {
        (importer if (importer, top(name)) in ALLOWED else top(importer), top(name))
        for importer, imported in imported_modules().items()
        for name in imported
        if top(importer) != top(name)
    }

    assert found == ALLOWED


@pytest.mark.parametrize("folder", ["training", "pairs"])
def test_nothing_that_serves_imports_what_trains(folder: str) -> None:
    not_serving = ("omnifleet_worker.training", "omnifleet_worker.pairs")
    importers = {
        importer
        for importer, imported in imported_modules().items()
        if not importer.startswith(not_serving) and any(name.startswith(not_serving) for name in imported)
    }
    command = tree(modules()[f"omnifleet_worker.{folder}.cli"].path)
    at_once = [node.module for node in command.body if isinstance(node, ast.ImportFrom) and node.level]

    assert importers == {"omnifleet_worker.cli"}
    assert at_once == ["installation"]


def top(name: str) -> str:
    return name.partition(".")[0]


def test_no_folder_is_crowded() -> None:
    files = sources("shared", "producer", "worker", "tests", "chaos", "benchmarks", "demo")

    counts = Counter(str(path.parent.relative_to(ROOT)) for path in files if path.name != "__init__.py")

    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES_IN_A_FOLDER} == {}


@pytest.mark.parametrize("folder", ["shared", "producer", "worker", "chaos", "benchmarks", "demo"])
def test_no_module_is_long(folder: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(folder)}

    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES_IN_A_MODULE} == {}


@pytest.mark.parametrize("folder", ["shared", "producer", "worker", "chaos", "benchmarks", "demo", "tests"])
def test_no_function_is_long(folder: str) -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.name}": lines_of(node)
        for path in sources(folder)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_IN_A_FUNCTION} == {}
