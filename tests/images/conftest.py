"""Images as they are built, and the fleet of docker/compose.yaml made from them: `make test-images`.

Docker or podman, whichever is there. Where no registry is reached, set OMNIFLEET_TEST_STAND_INS=1 with `mc` on
the PATH and images of debian, python, redis and minio at hand; those of the right Redis and of mc are made from them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deployment import composed
from support.deployment.composed import ROOT, Engine

BUILD_SECONDS = 3000
TAG = "test"


@pytest.fixture(scope="session")
def engine() -> Engine:
    engines = [Engine(path) for path in map(shutil.which, ("docker", "podman")) if path]
    for engine in engines:
        if engine.trouble is None:
            return engine
    return pytest.fail(f"neither Docker nor podman answers: {[engine.trouble for engine in engines]}")


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, str]:
    """Our images by role, newly built."""
    return {
        "worker": engine.build(f"omnifleet-worker:{TAG}", "docker/worker.Dockerfile"),
        "producer": engine.build(f"omnifleet:{TAG}", "docker/producer.Dockerfile"),
        "gateway": engine.build(
            f"omnifleet-gateway:{TAG}", "docker/producer.Dockerfile", "--build-arg", "LOCK=gateway"
        ),
    }


@pytest.fixture(scope="session")
def servers(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables that name other images of the servers than the published ones."""
    if "OMNIFLEET_TEST_STAND_INS" not in os.environ:
        return {}
    context = tmp_path_factory.mktemp("mc")
    client = shutil.which("mc")
    assert client, "mc is not on the PATH: go install github.com/minio/mc@latest"
    shutil.copy(client, context / "mc")
    here = "tests/images"
    return {
        "MC_IMAGE": engine.build("localhost/omnifleet-test-mc:latest", f"{here}/mc.Dockerfile", context=context),
        "REDIS_IMAGE": engine.build(
            "localhost/omnifleet-test-redis:latest", f"{here}/redis.Dockerfile", context=ROOT / here
        ),
        "MINIO_IMAGE": "docker.io/minio/minio:latest",
    }


@pytest.fixture(scope="module")
def fleet(
    engine: Engine, images: dict[str, str], servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[composed.Fleet]:
    """The cpu profile, up and ready, with passwords and ports of its own; it leaves nothing behind."""
    settings = composed.write_settings(tmp_path_factory.mktemp("compose") / ".env")
    found = composed.Fleet(engine, settings, servers | {"OMNIFLEET_TAG": TAG})
    try:
        found.up()
        found.wait_until_ready()
        yield found
    finally:
        found.down()


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the desk's own proxy comes between a test and its containers."""
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))
