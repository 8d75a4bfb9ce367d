"""The images: small rights, no tools, and libraries that a change of code does not touch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.deployment.composed import ROOT, Engine

TOOLS = ["cc", "gcc", "g++", "make", "ld", "git", "uv", "curl", "wget"]


@pytest.fixture(params=["worker", "producer", "gateway"])
def image(request: pytest.FixtureRequest, images: dict[str, str]) -> str:
    return images[request.param]


def test_it_runs_as_an_ordinary_user_with_a_fixed_number(engine: Engine, image: str) -> None:
    assert engine.inspect(image)["Config"]["User"] == "10001:10001"
    assert engine.run(image, "id", "-un").strip() == "omnifleet"


def test_it_brings_no_tools_to_build_with(engine: Engine, image: str) -> None:
    found = engine.run(image, "sh", "-c", f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; true")

    assert found == ""


def test_without_a_compiler_nothing_is_compiled_and_with_one_it_is(engine: Engine, images: dict[str, str]) -> None:
    assert "OMNIFLEET_COMPILE=off" in engine.inspect(images["worker"])["Config"]["Env"]

    compiling = engine.build("omnifleet-worker:compiling", "docker/worker.Dockerfile", "--build-arg", "COMPILER=g++")

    assert "OMNIFLEET_COMPILE=auto" in engine.inspect(compiling)["Config"]["Env"]
    code = "import torch; print(torch.compile(lambda x: x.sin() + 1)(torch.zeros(8)).sum().item())"
    # An ordinary one: what is made in /tmp has to be run from there.
    assert (
        engine("run", "--rm", "--read-only", "--tmpfs", "/tmp:exec", "--entrypoint", "python", compiling, "-c", code)
        == "8.0\n"
    )
    engine("rmi", compiling)


def test_an_init_process_comes_first(engine: Engine, image: str) -> None:
    assert engine.inspect(image)["Config"]["Entrypoint"][:2] == ["tini", "--"]


def test_its_commands_answer(engine: Engine, images: dict[str, str]) -> None:
    hardened = ["run", "--rm", "--read-only", "--cap-drop", "ALL"]

    assert "fetch-checkpoint" in engine(*hardened, images["worker"], "--help")
    assert "understand" in engine(*hardened, images["producer"], "--help")
    assert "--without-keys" in engine(*hardened, images["gateway"], "gateway", "--help")


def test_the_worker_says_itself_whether_it_is_ready(engine: Engine, images: dict[str, str]) -> None:
    found = engine.inspect(images["worker"])
    check = found.get("Healthcheck") or found["Config"]["Healthcheck"]  # podman's place, and Docker's

    assert check["Test"] == ["CMD", "python", "/opt/healthcheck.py"]
    assert "OMNIFLEET_HTTP_PORT=8080" in found["Config"]["Env"]


def test_its_libraries_are_those_that_the_package_asks_for(engine: Engine, image: str) -> None:
    # Of the extra alone whose libraries are there: the producer's image has none of the worker's.
    code = (
        "import importlib.metadata as m, sys; from packaging.requirements import Requirement as R\n"
        "extra = {'extra': 'worker' if m.packages_distributions().get('torch') else ''}\n"
        "for r in map(R, m.requires('omnifleet')):\n"
        "    if not r.marker or r.marker.evaluate(extra): assert m.version(r.name) in r.specifier, r\n"
    )

    engine.run(image, "python", "-c", code)


def test_a_change_of_code_leaves_every_layer_but_the_last_as_it_was(
    engine: Engine, images: dict[str, str], tmp_path: Path
) -> None:
    names = ["LICENSE", "README.md", "pyproject.toml", ".dockerignore", "docker", "shared", "producer", "worker"]
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    with (tmp_path / "worker/omnifleet_worker/service/progress_reporter.py").open("a") as file:
        file.write("\n# One more line.\n")

    changed = engine.build("omnifleet-worker:changed", "docker/worker.Dockerfile", context=tmp_path)

    before, after = (engine.inspect(image)["RootFS"]["Layers"] for image in (images["worker"], changed))
    engine("rmi", changed)
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
