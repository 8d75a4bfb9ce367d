"""A container engine, and the fleet that it brings up, as the tests of the images use them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from omnifleet import FleetSettings

from support import ROOT, services

COMPOSE = "docker/compose.yaml"
READY_SECONDS = 300
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


@dataclass(frozen=True)
class Engine:
    """Docker or podman."""

    path: str

    @property
    def is_podman(self) -> bool:
        return Path(self.path).name == "podman"

    @property
    def trouble(self) -> str | None:
        """Why it does not answer: its command line may be there alone."""
        result = subprocess.run([self.path, "info"], capture_output=True, text=True, check=False)
        return result.stderr[-500:] if result.returncode else None

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run a command of it; what it printed."""
        result = subprocess.run([self.path, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0 or not check, f"{arguments}: {result.stderr[-3000:]}"
        return result.stdout

    def build(self, tag: str, file: str, *options: str, context: Path = ROOT) -> str:
        """Build an image; its tag."""
        podman = ["--format", "docker"] if self.is_podman else []  # podman's own format has no health checks
        self("build", *podman, *options, "--network", "host", "-t", tag, "-f", str(ROOT / file), str(context))
        return tag

    def run(self, image: str, *command: str) -> str:
        """Run a command in a new hardened container, without the image's entry point."""
        entrypoint, *arguments = command
        return self("run", "--rm", *HARDENED, "--entrypoint", entrypoint, image, *arguments)

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self("inspect", name))
        return dict(found)

    def compose(self) -> list[str]:
        if self.is_podman:
            tool = shutil.which("podman-compose", path=str(Path(sys.executable).parent))
            assert tool, "podman-compose is not installed: make test-images installs it"
            return [tool, "--podman-path", self.path]
        return [self.path, "compose"]


def write_settings(path: Path) -> dict[str, str]:
    """The settings that `make up` would write, on free ports; what is in them."""
    path.write_text(subprocess.run([ROOT / "docker/create-env"], capture_output=True, text=True, check=True).stdout)
    named = ("REDIS_PORT", "MINIO_PORT", "FLOWER_PORT", "EXPORTER_PORT", "GATEWAY_PORT")
    ports = {name: str(services.free_port()) for name in named}
    lines = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in ports]
    path.write_text("\n".join([*(f"{name}={port}" for name, port in ports.items()), *lines, ""]))
    path.chmod(0o600)
    return {name: value or "" for name, value in dotenv_values(path).items()}


@dataclass
class Fleet:
    """docker/compose.yaml, profile cpu, under a project name of its own."""

    engine: Engine
    settings: dict[str, str]
    images: dict[str, str]
    project: str = field(default_factory=lambda: f"omnifleet-test-{os.getpid()}")

    def compose(self, *arguments: str) -> None:
        command = [*self.engine.compose(), "-p", self.project, "-f", COMPOSE, "--profile", "cpu", *arguments]
        environment = os.environ | self.settings | self.images
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{arguments}: {result.stdout[-2000:]}\n{result.stderr[-3000:]}"

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build")

    def down(self) -> None:
        """Stop everything; its volumes go too."""
        self.compose("down", "--volumes")

    @property
    def containers(self) -> dict[str, str]:
        """Names of containers by service."""
        names = self.engine("ps", "--all", "--format", "{{.Names}}").split()
        own = [name for name in names if name.startswith(self.project)]
        return {name.removeprefix(self.project)[1:].rpartition("_" if "_" in name else "-")[0]: name for name in own}

    def is_healthy(self, service: str, *command: str) -> bool:
        """Whether the health check says so inside the container."""
        command = command or ("python", "/opt/healthcheck.py")
        done = subprocess.run([self.engine.path, "exec", self.containers[service], *command], capture_output=True)
        return done.returncode == 0

    def wait_until_ready(self) -> None:
        services.wait_until(lambda: self.is_healthy("worker"), READY_SECONDS, "the worker's readiness")

    @property
    def client_settings(self) -> FleetSettings:
        """Of a client on this machine, as docker/.env gives them; its keys go into the environment."""
        os.environ |= {key: self.settings[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        return FleetSettings(
            redis_url=self.settings["OMNIFLEET_REDIS_URL"],
            storage=self.settings["OMNIFLEET_STORAGE"],
            s3_endpoint=self.settings["OMNIFLEET_S3_ENDPOINT"],
        )
