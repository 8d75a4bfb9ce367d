"""Flower on a real fleet, looked at with a browser."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from omnifleet import Client, FleetSettings, InvalidSetting, JobStatus, MediaUnreadable
from omnifleet.ops.flower import COLUMNS, check_login
from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.broker.worker_registry import WorkerRegistry
from omnifleet_shared.keys import MODEL
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from support import browser, scripted_fleet, services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker

USER, PASSWORD = "operator", "a-long-password"
PROMPT = "rain on a tin roof"
MANY = 1000


@pytest.fixture
def worker(scripted: ScriptedFleet) -> ScriptedWorker:
    return scripted.start()


@contextmanager
def flower(scripted: ScriptedFleet, **more: str) -> Iterator[int]:
    """Its port."""
    port = services.free_port()
    environment = scripted.environment | {"FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}"} | more
    command = [sys.executable, "-m", "omnifleet", "flower", "--host", "127.0.0.1", "--port", str(port)]
    with services.process(command, environment=environment):
        services.wait_until(lambda: scripted_fleet.page(port, "/healthcheck")[0] == 200, WAIT, "Flower")
        yield port


@pytest.fixture
def port(scripted: ScriptedFleet, worker: ScriptedWorker) -> Iterator[int]:
    """Of a Flower that knows the worker."""
    with flower(scripted) as port:
        services.wait_until(lambda: "scripted-0@" in read(port, "/workers?json=1"), WAIT, "Flower knows the worker")
        yield port


def read(port: int, path: str) -> str:
    """What Flower shows to who has logged in."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def row_of(page: Chrome, job_id: str) -> dict[str, str]:
    """A job's row in the table, by the columns' names."""
    for row in page.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr"):
        if job_id in row.text:
            cells = [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
            return dict(zip(COLUMNS.split(","), cells, strict=True))
    return {}


def worker_names(port: int) -> set[str]:
    """The workers that Flower knows, without their machine's name."""
    return {one["hostname"].partition("@")[0] for one in json.loads(read(port, "/workers?json=1"))["data"]}


def asked_queues(port: int) -> set[str]:
    """The queues that the workers name when Flower asks them."""
    workers = json.loads(read(port, "/api/workers?refresh=1")).values()
    return {queue["name"] for one in workers for queue in one.get("active_queues", [])}


def state_of(port: int, job_id: str) -> str | None:
    """What Flower shows; None while it has not heard of the job, for workers send their events together."""
    try:
        return str(json.loads(read(port, f"/api/task/info/{job_id}"))["state"])
    except urllib.error.HTTPError as unknown:
        unknown.close()
        return None


def test_an_operator_logs_in_and_sees_the_jobs(scripted: ScriptedFleet, port: int, tmp_path: Path) -> None:
    made = scripted.omni.generate("t2a", PROMPT, steps=2)
    failed = scripted.omni.understand(question="what is said?", audio=b"no audio", priority="batch")
    made.result(WAIT)
    with pytest.raises(MediaUnreadable):
        failed.result(WAIT)
    services.wait_until(lambda: state_of(port, failed.id) == "FAILURE", WAIT)

    with browser.chromium() as page:
        page.get(f"http://{USER}:{PASSWORD}@127.0.0.1:{port}/tasks")
        services.wait_until(lambda: row_of(page, made.id).get("state") == "SUCCESS", WAIT, "the job's row")
        page.save_screenshot(str(tmp_path / "tasks.png"))
        success, failure = row_of(page, made.id), row_of(page, failed.id)
        page.get(f"http://127.0.0.1:{port}/workers")
        services.wait_until(lambda: "scripted-0@" in page.page_source, WAIT, "the worker's row")
        page.save_screenshot(str(tmp_path / "workers.png"))
        workers = page.find_element(By.CSS_SELECTOR, "#workers-table").text

    assert success["uuid"] == made.id
    assert success["name"] == "omnifleet.generate"
    assert success["args"] == "generate.t2a"
    assert PROMPT in success["kwargs"]
    assert "s of wav, attempt 1" in success["result"]
    assert success["runtime"].endswith("s")
    with closing(WorkerRegistry.connect(scripted.settings)) as registry:
        (name,) = [one.record.name for one in registry.all()]
    assert success["worker"].replace("\n", "") == name  # as in `omnifleet top`
    assert (failure["name"], failure["state"]) == ("omnifleet.understand", "FAILURE")
    assert "priority=batch" in failure["kwargs"]
    assert "Online" in workers


def test_every_queue_of_the_fleet_is_shown(scripted: ScriptedFleet, worker: ScriptedWorker) -> None:
    mine = {"name": "mine", "revision": "1", "licence": "MIT", "commercial_use": True, "languages": ["en"]}
    queue_of = FleetSettings().queue_of
    with flower(scripted, OMNIFLEET_MODELS=f"{MODEL},voxcpm2") as port:
        # Its workers come when Flower is there already, and no setting of Flower's names it.
        scripted.start(OMNIFLEET_QUEUE=queue_of("mine"), SCRIPTED_CARD=json.dumps(mine))
        services.wait_until(lambda: worker_names(port) == {"scripted-0", "scripted-1"}, WAIT, "both workers")
        with Client(scripted.settings) as omni:
            jobs = [omni.understand(question="Who is it?", model=name) for name in (None, "mine")]
            for one in jobs:
                one.result(WAIT)
        services.wait_until(lambda: {state_of(port, one.id) for one in jobs} == {"SUCCESS"}, WAIT, "both jobs")
        services.wait_until(lambda: asked_queues(port) == {MODEL, queue_of("mine")}, WAIT, "both workers' answers")

        with browser.chromium() as page:
            page.get(f"http://{USER}:{PASSWORD}@127.0.0.1:{port}/broker")
            services.wait_until(lambda: "mine" in page.page_source, WAIT, "the queues")
            rows = page.find_elements(By.CSS_SELECTOR, "#queue-table tbody tr")
            queues = {row.find_elements(By.TAG_NAME, "td")[0].text for row in rows}
            page.get(f"http://127.0.0.1:{port}/workers")
            services.wait_until(lambda: "scripted-1@" in page.page_source, WAIT, "the workers' rows")
            shown = page.find_element(By.CSS_SELECTOR, "#workers-table").text

    assert queues == {queue_of(name) for name in (MODEL, "voxcpm2", "mine")}
    assert shown.count("Online") == 2


@pytest.mark.parametrize("path", ["/", "/tasks", "/workers", "/broker", "/api/tasks", "/api/workers"])
def test_nobody_sees_anything_without_a_login(port: int, path: str) -> None:
    status, text = scripted_fleet.page(port, path)

    assert status == 401
    assert "scripted" not in text


def test_a_browser_without_a_login_sees_nothing(port: int) -> None:
    with browser.chromium() as page:
        page.get(f"http://127.0.0.1:{port}/tasks")

        assert "omnifleet" not in page.page_source
        assert page.find_elements(By.CSS_SELECTOR, "#tasks-table") == []


def test_what_flower_shows_holds_no_link_and_no_answer(scripted: ScriptedFleet, port: int) -> None:
    job = scripted.omni.understand(question="a question", max_new_tokens=2)
    answer = job.result(WAIT).text
    services.wait_until(lambda: state_of(port, job.id) == "SUCCESS", WAIT)

    shown = json.loads(read(port, f"/api/task/info/{job.id}"))

    assert shown["result"] == f"'{len(answer)} characters, attempt 1'"
    assert "file://" not in json.dumps(shown)


def test_nobody_can_change_anything(scripted: ScriptedFleet, port: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/task/revoke/some-job",
            method="POST",
            headers={"Authorization": f"Basic {login}"},
            data=b"",
        )
        urllib.request.urlopen(request, timeout=30)

    assert refused.value.code == 403
    refused.value.close()


def test_a_bad_file_is_named_without_a_traceback_of_the_worker_s(scripted: ScriptedFleet, port: int) -> None:
    job = scripted.omni.understand(question="what is said?", audio=b"no audio")
    with pytest.raises(MediaUnreadable):
        job.result(WAIT)
    services.wait_until(lambda: state_of(port, job.id) == "FAILURE", WAIT)

    shown = json.loads(read(port, f"/api/task/info/{job.id}"))

    assert shown["exception"].startswith("MediaUnreadable: audio: ")
    assert not shown["traceback"]
    assert "most recent call last" not in read(port, f"/task/{job.id}")


def test_the_table_agrees_with_the_records_of_many_jobs_that_end_at_once(scripted: ScriptedFleet) -> None:
    jobs = [scripted.omni.understand(question=f"number {number}") for number in range(MANY)]
    for job in jobs:
        job.cancel()
    with flower(scripted) as port:
        scripted.start()
        services.wait_until(lambda: all(job.status() is JobStatus.CANCELLED for job in jobs), WAIT, "all cancelled")

        def states() -> dict[str, str]:
            shown = json.loads(read(port, f"/api/tasks?limit={2 * MANY}"))
            return {job_id: task["state"] for job_id, task in shown.items()}

        services.wait_until(lambda: states() == {job.id: "REVOKED" for job in jobs}, WAIT, "Flower's table")


def test_a_retried_job_is_shown_with_its_last_word(scripted: ScriptedFleet, port: int, worker: ScriptedWorker) -> None:
    job = scripted.omni.understand(question="time", max_new_tokens=60)
    services.wait_until(lambda: job.progress().step > 2, WAIT, "progress")
    worker.kill()
    scripted.start()
    job.result(WAIT)

    services.wait_until(lambda: state_of(port, job.id) == "SUCCESS", WAIT)

    assert json.loads(read(port, f"/api/task/info/{job.id}"))["result"].endswith("attempt 2'")


@pytest.mark.parametrize(
    "login", [None, "", "operator", "operator:", ":a-long-password", "operator:short", "a:long-enough,b:"]
)
def test_without_a_login_to_ask_for_it_does_not_start(login: str | None) -> None:
    with pytest.raises(InvalidSetting, match="FLOWER_BASIC_AUTH"):
        check_login({} if login is None else {"FLOWER_BASIC_AUTH": login})


def test_the_command_says_what_is_missing(scripted: ScriptedFleet) -> None:
    command = [sys.executable, "-m", "omnifleet", "flower", "--port", str(services.free_port())]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "Set it to name:password" in done.stderr


def test_workers_tell_their_state_and_never_the_password_of_redis(scripted: ScriptedFleet) -> None:
    scripted.redis.client().execute_command("ACL", "SETUSER", "worker", "on", ">the-secret", "~*", "&*", "+@all")
    scripted.start(OMNIFLEET_REDIS_URL=scripted.settings.redis_url.replace("://", "://worker:the-secret@"))
    inspect = create_app(scripted.settings).control.inspect(timeout=10)

    found = {"stats": inspect.stats(), "conf": inspect.conf(with_defaults=True), "report": inspect.report()}

    assert all(found.values())
    assert "the-secret" not in json.dumps(found)
