"""The examples, run as their readers would: a backend under uvicorn, and Node.js over plain Redis, on a real fleet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from omnifleet import Client
from support import processes, services
from support.data import media_files
from support.data.contract import check

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE = EXAMPLES / "node"
SECRET = "a secret of this very test"
WAIT = 240.0
SOUND = media_files.wav(1.0, 16_000)


@pytest.fixture(scope="module")
def port() -> int:
    return services.free_port()


@pytest.fixture(scope="module")
def environment(fleet_environment: dict[str, str], port: int, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fleet of its own, whose worker may call the backend back."""
    redis = services.RedisServer(services.free_port(), tmp_path_factory.mktemp("redis"))
    with redis.running():
        yield fleet_environment | {
            "OMNIFLEET_REDIS_URL": redis.url,
            "OMNIFLEET_CALLBACK_HOSTS": f"http://127.0.0.1:{port}",
            "OMNIFLEET_CALLBACK_SECRET": SECRET,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }


@pytest.fixture(scope="module")
def worker(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with processes.worker(environment, tmp_path_factory.mktemp("logs") / "worker.log") as running:
        running.wait_until_ready()
        yield


class Backend:
    """Talks to the example over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, data: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, JSON and headers of the answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self._url}{path}", data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                return answer.status, _json(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read()), error.headers

    def post(self, path: str, record: Mapping[str, Any]) -> tuple[int, Any, Any]:
        return self.ask("POST", path, json.dumps(record).encode(), Content_Type="application/json")

    def upload(self, path: str, data: bytes) -> tuple[int, Any, Any]:
        head = b'--cut\r\nContent-Disposition: form-data; name="audio"; filename="call.wav"\r\n\r\n'
        return self.ask(
            "POST", path, head + data + b"\r\n--cut--\r\n", Content_Type="multipart/form-data; boundary=cut"
        )

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/openapi.json")[0] == 200
        except OSError:
            return False


def _json(body: bytes) -> Any:
    return json.loads(body) if body else None


@pytest.fixture(scope="module")
def backend(environment: dict[str, str], port: int) -> Iterator[Backend]:
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "app:app", "--port", str(port)]
    folder = EXAMPLES / "fastapi_backend"
    child = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    try:
        running = Backend(port)
        services.wait_until(running.is_up, WAIT, "the backend")
        yield running
    finally:
        child.terminate()
        log = child.communicate(timeout=WAIT)[1]
    # The client was closed with the application, and nothing was left open.
    assert "Application shutdown complete" in log
    assert "Traceback" not in log, log


@pytest.mark.usefixtures("worker")
class TestFastApi:
    def test_a_recording_is_transcribed(self, backend: Backend) -> None:
        status, accepted, _ = backend.upload("/transcripts", SOUND)
        assert (status, set(accepted)) == (202, {"job_id", "status"})

        status, result, _ = backend.ask("GET", f"/jobs/{accepted['job_id']}/result?wait=30")

        assert (status, result["job_id"]) == (200, accepted["job_id"])
        assert result["text"]
        _, look, _ = backend.ask("GET", f"/jobs/{accepted['job_id']}")
        assert look["status"] == "succeeded"

    def test_it_is_called_back_with_what_the_result_says(self, backend: Backend) -> None:
        _, accepted, _ = backend.post("/sounds", {"text": "a bell", "seconds": 0.5})
        job_id = accepted["job_id"]
        services.wait_until(lambda: backend.ask("GET", f"/callbacks/{job_id}")[0] == 200, WAIT, "the callback")

        _, told, _ = backend.ask("GET", f"/callbacks/{job_id}")

        check("callback", told)
        assert told["status"] == "succeeded"
        _, result, _ = backend.ask("GET", f"/jobs/{job_id}/result")
        assert told["result"]["seed"] == result["seed"]
        with urllib.request.urlopen(result["audio"]["url"], timeout=WAIT) as answer:
            assert len(answer.read()) == told["result"]["artifact"]["bytes"]
        services.wait_until(
            lambda: backend.ask("GET", f"/jobs/{job_id}")[1]["callback"]["status"] == "delivered", WAIT, "its state"
        )

    def test_the_same_wish_is_one_job_and_can_be_cancelled(self, backend: Backend) -> None:
        wish = {"text": "a long wave", "seconds": 300, "seed": 7}
        first, second = backend.post("/sounds", wish)[1], backend.post("/sounds", wish)[1]
        assert first["job_id"] == second["job_id"]
        assert backend.ask("GET", f"/jobs/{first['job_id']}/result")[0] == 202

        assert backend.ask("DELETE", f"/jobs/{first['job_id']}")[0] == 202

        status, answer, _ = backend.ask("GET", f"/jobs/{first['job_id']}/result?wait=30")
        assert (status, answer["error"]["type"]) == (410, "JobCancelled")

    def test_errors_are_told_in_http_s_own_terms(self, backend: Backend) -> None:
        status, answer, _ = backend.post("/sounds", {"text": "rain", "seconds": 301})
        assert (status, answer["error"]["type"], answer["error"]["field"]) == (422, "InvalidJob", "seconds")
        status, answer, _ = backend.ask("GET", "/jobs/nobody")
        assert (status, answer["error"]["type"]) == (404, "UnknownJob")
        status, answer, _ = backend.upload("/transcripts", b"")
        assert (status, answer["error"]["type"]) == (422, "MediaEmpty")
        status, answer, _ = backend.post("/callbacks", {"job_id": "x"})
        assert (status, answer["error"]["type"]) == (401, "SignatureInvalid")
        job_id = backend.upload("/transcripts", b"no sound at all")[1]["job_id"]
        status, answer, _ = backend.ask("GET", f"/jobs/{job_id}/result?wait=30")
        assert (status, answer["error"]["type"], answer["error"]["field"]) == (422, "MediaUnreadable", "audio")


@pytest.fixture(scope="module")
def node() -> str:
    binary = shutil.which("node")
    if binary is None or not (NODE / "node_modules").exists():
        reason = "node, or what npm ci --prefix examples/node installs, is missing"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


@pytest.mark.usefixtures("worker")
class TestNode:
    def run(self, node: str, environment: dict[str, str], asked: object) -> tuple[int, Any, str]:
        """Exit code, what it printed, and the id of the job that it sent."""
        text = asked if isinstance(asked, str) else json.dumps(asked)
        command = [node, str(NODE / "ask.js"), text]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr.removeprefix("sent: ").strip()

    def test_a_question_is_answered(self, node: str, environment: dict[str, str]) -> None:
        code, result, job_id = self.run(node, environment, "What is a fugue?")

        assert (code, result["job_id"]) == (0, job_id)
        assert result["text"]
        check("result", result)

    def test_its_message_and_records_are_those_of_the_contract(
        self, node: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = {"namespace": "generate", "steps": 1, "task": {"name": "t2a", "text": "rain", "seconds": 0.5}}

        code, result, job_id = self.run(node, environment, job | {"priority": "batch"})

        assert code == 0, result
        check("result", result)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with Client() as omni:
            assert omni.job(job_id).result(1).record.model_dump(mode="json") == result

    def test_a_failure_is_the_typed_error(self, node: str, environment: dict[str, str]) -> None:
        code, answer, _ = self.run(node, environment, {"namespace": "generate", "task": {"name": "t2x", "text": "x"}})

        assert (code, answer["error"]["type"]) == (1, "UnknownTask")
        assert "Did you mean" in answer["error"]["message"]
