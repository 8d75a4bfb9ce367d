"""What images and compose.yaml are made from fits the code: settings, libraries, times, rights."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import services
from support.command_lines import SETTINGS
from support.deployment.manifests import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
GPU_WORKERS = sorted(name for name in COMPOSE if name.startswith("worker-gpu"))
AFTER_GRACE = 30
"""Seconds for what a drained worker still does: store, record, hand back."""


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """A server that always answers so; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if self.path == "/readyz" else b"another page")

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class TestHealthCheck:
    def check(self, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(ROOT / "docker/healthcheck.py"), *arguments]
        env = {"OMNIFLEET_HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def test_a_ready_worker_passes(self) -> None:
        with answering(200, b"ok") as port:
            result = self.check(port)

        assert (result.returncode, result.stdout) == (0, "ok")

    def test_a_worker_that_is_not_ready_fails_and_says_why(self) -> None:
        with answering(503, b"the checkpoint is being loaded") as port:
            result = self.check(port)

        assert (result.returncode, result.stdout) == (1, "503: the checkpoint is being loaded")

    def test_nobody_there_fails(self) -> None:
        result = self.check(services.free_port())

        assert result.returncode == 1
        assert "does not answer" in result.stdout

    def test_another_page_can_be_asked(self) -> None:
        with answering(200, b"ok") as port:
            result = self.check(1, f"http://127.0.0.1:{port}/livez")

        assert (result.returncode, result.stdout) == (0, "another page")


class TestCompose:
    def test_every_variable_is_read_by_somebody(self) -> None:
        for name, service in COMPOSE.items():
            ours = {key for key in service.get("environment", {}) if key.startswith("OMNIFLEET_")}
            assert ours <= SETTINGS, name

    def test_whatever_is_filled_in_stands_in_the_example(self) -> None:
        text = (ROOT / "docker/compose.yaml").read_text()
        named = set(re.findall(r"\$\{([A-Z_]+)(?::\?[^}]*)?\}", text))
        example = (ROOT / "docker/.env.example").read_text()

        assert named
        assert named <= set(re.findall(r"^([A-Z_0-9]+)=", example, re.M))

    def test_the_settings_that_are_written_have_passwords_nobody_knows(self) -> None:
        first, second = (
            subprocess.run([ROOT / "docker/create-env"], capture_output=True, text=True, check=True).stdout
            for _ in range(2)
        )
        secret = re.compile(r"^(\w+)=([0-9a-f]{48})$", re.M)

        names = {"REDIS_PASSWORD", "MINIO_ROOT_PASSWORD", "AWS_SECRET_ACCESS_KEY", "FLOWER_PASSWORD"}
        assert {name for name, _ in secret.findall(first)} == names
        assert not {value for _, value in secret.findall(first)} & {value for _, value in secret.findall(second)}

    @pytest.mark.parametrize(
        ("programs", "said"),
        [
            ({}, "neither Docker nor podman is installed"),
            ({"docker": "exit 1"}, "Docker's daemon does not answer: start it"),
            ({"docker": "test $1 = info"}, "Docker has no compose plugin"),
            ({"podman": "exit 1", "podman-compose": "exit 0"}, "podman does not work here"),
            ({"podman": "exit 0"}, "pip install podman-compose"),
            ({"docker": "exit 1", "podman": "exit 0"}, "pip install podman-compose"),
        ],
    )
    def test_make_up_says_what_is_missing(self, tmp_path: Path, programs: dict[str, str], said: str) -> None:
        done = self.find_compose(tmp_path, programs)

        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert "make demo KEEP=1" in done.stderr

    @pytest.mark.parametrize(
        ("programs", "found"),
        [
            ({"docker": "exit 0", "podman": "exit 0", "podman-compose": "exit 0"}, "docker compose"),
            ({"docker": "exit 1", "podman": "exit 0", "podman-compose": "exit 0"}, "podman-compose"),
        ],
    )
    def test_make_up_takes_what_works(self, tmp_path: Path, programs: dict[str, str], found: str) -> None:
        assert self.find_compose(tmp_path, programs).stdout == f"{found}\n"

    def test_make_up_ends_where_there_is_nothing_to_run_it(self, tmp_path: Path) -> None:
        for name in ("docker", "podman"):
            self.write_program(tmp_path / name, "exit 1")
        home = tmp_path / "home"
        shutil.copytree(ROOT / "docker", home / "docker")
        shutil.copy(ROOT / "Makefile", home)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

        done = subprocess.run(
            ["make", "--silent", "up"], cwd=home, env=env, capture_output=True, text=True, check=False
        )

        assert done.returncode != 0
        assert "make up: Docker's daemon does not answer" in done.stderr

    @staticmethod
    def write_program(path: Path, body: str) -> None:
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def find_compose(self, folder: Path, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
        for name, body in programs.items():
            self.write_program(folder / name, body)
        command = ["/bin/sh", str(ROOT / "docker/find-compose")]
        return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)

    def test_they_are_not_in_git(self) -> None:
        ignored = subprocess.run(["git", "check-ignore", "docker/.env"], cwd=ROOT, check=False, capture_output=True)

        assert ignored.returncode == 0

    def test_a_worker_may_drain_before_it_is_killed(self) -> None:
        for name in ("worker", *GPU_WORKERS):
            period = float(COMPOSE[name]["stop_grace_period"].removesuffix("s"))
            assert float(COMPOSE[name]["environment"]["OMNIFLEET_GRACE"]) + AFTER_GRACE <= period

    def test_a_gateway_may_answer_before_it_is_killed(self) -> None:
        gateway = COMPOSE["gateway"]

        assert float(gateway["environment"]["OMNIFLEET_GATEWAY_GRACE"]) + 10 <= float(
            gateway["stop_grace_period"].removesuffix("s")
        )

    def test_every_image_is_built_from_a_lock_that_is_there(self) -> None:
        text = (ROOT / "docker/producer.Dockerfile").read_text()
        (default,) = re.findall(r"^ARG LOCK=(\w+)$", text, re.M)
        built = {
            service["build"].get("args", {}).get("LOCK", default) for service in COMPOSE.values() if "build" in service
        }

        assert {default, "gateway"} <= built
        assert all((ROOT / f"locks/{lock}.txt").exists() for lock in built)

    def test_nothing_has_rights_that_it_does_not_need(self) -> None:
        for name, service in COMPOSE.items():
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert "privileged" not in service, name

    def test_nothing_listens_to_other_machines(self) -> None:
        for service in COMPOSE.values():
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))

    def test_every_gpu_has_one_worker(self) -> None:
        devices = [COMPOSE[name]["deploy"]["resources"]["reservations"]["devices"] for name in GPU_WORKERS]

        assert [device["device_ids"] for (device,) in devices] == [[str(number)] for number in range(8)]
        assert COMPOSE["worker-gpu-0"]["profiles"] == ["gpu"]
        assert [COMPOSE[name]["profiles"] for name in GPU_WORKERS[1:]] == [[f"gpu-{number}"] for number in range(1, 8)]

    def test_workers_start_after_redis_answers_and_the_bucket_is_made(self) -> None:
        for name in ("worker", *GPU_WORKERS):
            needs = {service: need["condition"] for service, need in COMPOSE[name]["depends_on"].items()}
            assert needs["redis"] == "service_healthy"
            assert needs["minio-setup"] == "service_completed_successfully"
        assert COMPOSE["redis"]["healthcheck"]["test"]


def test_the_storages_user_may_do_what_omnifleet_does_where_it_does_it() -> None:
    policy: dict[str, Any] = json.loads((ROOT / "k8s/components/minio/policy.json").read_text())
    allowed = {
        (action, resource) for one in policy["Statement"] for action in one["Action"] for resource in one["Resource"]
    }
    storage = COMPOSE["worker"]["environment"]["OMNIFLEET_STORAGE"].removeprefix("s3://")

    assert ("s3:PutObject", f"arn:aws:s3:::{storage}/*") in allowed
    assert ("s3:GetObject", f"arn:aws:s3:::{storage}/*") in allowed
    assert not any("*" in action for action, _ in allowed)
    deleted = {resource for action, resource in allowed if "Delete" in action}
    assert deleted == {f"arn:aws:s3:::{storage}/{folder}/*" for folder in ("parts", "voices", "adapters")}
    assert all(resource.startswith("arn:aws:s3:::omnifleet") for _, resource in allowed)
