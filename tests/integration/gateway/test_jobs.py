"""Jobs over HTTP: sent in every form, followed, heard, cancelled; on a real fleet with scripted workers."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from typing import Any

import pytest
from support import services
from support.data import media_files
from support.gateway.process import LONG, WAIT, Answer, Gateway, Part, events, gateway
from support.scripted_fleet import ScriptedFleet

SOUND = media_files.wav(0.5)
INLINE = {"data": base64.b64encode(SOUND).decode()}
ENDS = {"job_done", "job_failed", "job_cancelled"}
RAIN = {"task": "generate.t2a", "text": "rain", "seconds": 0.5, "steps": 3}


class TestSending:
    def test_a_sound_is_made_and_downloaded(self, omnigate: Gateway) -> None:
        answer = omnigate.post("/v1/jobs?wait=60", RAIN)

        job = answer.json
        assert (answer.status, job["status"], job["error"]) == (200, "succeeded", None)
        audio = job["result"]["audio"]
        heard = omnigate.get(audio["path"])
        assert (heard.status, heard.headers["content-type"]) == (200, "audio/wav")
        assert hashlib.sha256(heard.body).hexdigest() == audio["sha256"]
        assert "url" not in audio and "uri" not in audio
        assert job["result"]["job_id"] == job["id"]

    @pytest.mark.parametrize("form", ["inline", "form", "upload"])
    def test_media_come_in_every_form(self, omnigate: Gateway, form: str) -> None:
        job = {"task": "edit.add", "desc": "rain", "steps": 2, "seed": 1}
        if form == "inline":
            sent = omnigate.post("/v1/jobs", {**job, "audio": INLINE})
        elif form == "form":
            parts = Part("job", json.dumps(job).encode()), Part("audio", SOUND, "../../etc/pass\twd.wav")
            sent = omnigate.post_form("/v1/jobs", *parts)
        else:
            stored = omnigate.post_form("/v1/uploads", Part("file", SOUND, "street.wav"))
            assert (stored.status, stored.json["sha256"]) == (201, hashlib.sha256(SOUND).hexdigest())
            sent = omnigate.post("/v1/jobs", {**job, "audio": stored.json["uri"]})

        assert sent.status == 202, sent.body
        assert omnigate.wait(sent.json["id"])["status"] == "succeeded"

    def test_a_question_about_a_recording_is_answered(self, omnigate: Gateway) -> None:
        job = {"task": "understand", "question": "What is heard?", "audio": [INLINE], "max_new_tokens": 2}

        answer = omnigate.post("/v1/jobs?wait=60", job)

        assert answer.json["result"]["text"].startswith("What is heard?")
        assert omnigate.get(f"/v1/jobs/{answer.json['id']}/audio").status == 422

    @pytest.mark.parametrize(
        ("job", "code", "field"),
        [
            ({}, "InvalidJob", "task"),
            ({"task": "generate.t2x", "text": "x"}, "UnknownTask", "task"),
            ({"task": "generate.t2a"}, "InvalidJob", "text"),
            ({"task": "generate.t2a", "text": "x", "seconds": 301}, "InvalidJob", "seconds"),
            ({"task": "generate.t2a", "text": "x", "colour": "red"}, "InvalidJob", "colour"),
            ({"task": "edit.add", "desc": "x"}, "InvalidJob", "audio"),
            ({"task": "edit.add", "desc": "x", "audio": "/etc/passwd"}, "InvalidJob", "audio"),
            ({"task": "edit.add", "desc": "x", "audio": "file:///etc/passwd"}, "ForeignURI", "audio"),
            ({"task": "edit.add", "desc": "x", "audio": "https://example.com/a.wav"}, "ForeignURI", "audio"),
            ({"task": "edit.add", "desc": "x", "audio": {"data": "no base64!"}}, "InvalidJob", "audio.data"),
            ({"task": "edit.add", "desc": "x", "audio": {"path": "/etc/passwd"}}, "InvalidJob", "audio"),
            ({"task": "generate.t2a", "text": "x", "idempotency_key": "k"}, "InvalidJob", "idempotency_key"),
            ({"task": "understand.qa", "text": "x", "history": 5}, "InvalidJob", "body"),
            ({"task": "generate.t2a", "text": "x", "commercial": True}, "LicenceRefused", "commercial"),
        ],
    )
    def test_what_is_wrong_is_named(self, omnigate: Gateway, job: dict[str, Any], code: str, field: str) -> None:
        answer = omnigate.post("/v1/jobs", job)

        assert (answer.error["code"], answer.error["param"]) == (code, field)
        assert answer.status in (400, 403, 422)
        assert answer.error["message"].startswith(f"{field}: ")

    def test_a_job_that_fails_says_why(self, omnigate: Gateway) -> None:
        job = {"task": "understand.transcribe", "audio": {"data": base64.b64encode(b"no audio").decode()}}

        failed = omnigate.post("/v1/jobs?wait=60", job).json

        assert (failed["status"], failed["error"]["code"], failed["error"]["param"]) == (
            "failed",
            "MediaUnreadable",
            "audio",
        )

    def test_a_key_stands_for_one_job(self, omnigate: Gateway) -> None:
        ids = {omnigate.post("/v1/jobs", RAIN, {"Idempotency-Key": "once"}).json["id"] for _ in range(2)}

        assert len(ids) == 1
        refused = omnigate.post("/v1/jobs", RAIN, {"Idempotency-Key": "auto"})
        assert (refused.status, refused.error["param"]) == (400, "Idempotency-Key")


class TestLooking:
    @pytest.mark.parametrize("job_id", ["nobody", "0" * 32, "..%2f..%2fetc", "x" * 500, "%00", "a:b"])
    @pytest.mark.parametrize("page", ["", "/events", "/audio"])
    def test_an_unknown_job_is_404(self, omnigate: Gateway, job_id: str, page: str) -> None:
        assert omnigate.get(f"/v1/jobs/{job_id}{page}").status == 404

    def test_before_there_is_a_result_its_audio_is_409(self, omnigate: Gateway) -> None:
        job_id = omnigate.send(**RAIN | {"steps": LONG})

        early = omnigate.get(f"/v1/jobs/{job_id}/audio")

        assert (early.status, early.error["code"]) == (409, "ResultTimeout")
        assert "retry-after" in early.headers
        omnigate.ask("DELETE", f"/v1/jobs/{job_id}")

    @pytest.mark.parametrize(
        ("header", "status", "part"),
        [
            ("bytes=0-9", 206, slice(0, 10)),
            ("bytes=100-", 206, slice(100, None)),
            ("bytes=-44", 206, slice(-44, None)),
            ("bytes=0-", 206, slice(None)),
            ("bytes=5-1", 200, slice(None)),
            ("lines=0-9", 200, slice(None)),
            ("bytes=0-1,5-6", 200, slice(None)),
            ("bytes=99999999-", 416, slice(0, 0)),
        ],
    )
    def test_a_part_of_it_is_sent(self, omnigate: Gateway, header: str, status: int, part: slice) -> None:
        path = omnigate.post("/v1/jobs?wait=60", RAIN, {"Idempotency-Key": "parts"}).json["result"]["audio"]["path"]
        whole = omnigate.get(path)

        some = omnigate.get(path, {"Range": header})

        assert (some.status, some.body) == (status, whole.body[part])
        stale = omnigate.get(path, {"Range": header, "If-Range": '"another"'})
        assert (stale.status, stale.body) == (200, whole.body)
        assert omnigate.ask("HEAD", path).headers["content-length"] == str(len(whole.body))


class TestEvents:
    def test_progress_comes_first_and_the_outcome_last(self, omnigate: Gateway) -> None:
        job_id = omnigate.send(**RAIN | {"steps": 20})

        found = events(omnigate.get(f"/v1/jobs/{job_id}/events").body.decode())

        names = [name for name, _, _ in found]
        assert names == ["progress"] * (len(found) - 1) + ["outcome"]
        steps = [data["step"] for name, _, data in found if name == "progress"]
        assert steps == sorted(steps)
        assert found[-1][2]["status"] == "succeeded"
        assert len({event_id for _, event_id, _ in found}) == len(found)

    def test_another_replica_goes_on_where_a_stream_broke_off(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        job_id = omnigate.send(**RAIN | {"steps": 60})
        with omnigate.opened("GET", f"/v1/jobs/{job_id}/events") as stream:
            stream.read_until("\r\n\r\n")
            seen = stream.read_until('"steps": 60')
            last_id = stream.read_until("retry: 1000").split("id: ")[1].split("\n")[0]

        with gateway(fleet.environment, fleet.folder / "second.log", key=omnigate.key) as replica:
            rest = events(replica.get(f"/v1/jobs/{job_id}/events", {"Last-Event-ID": last_id}).body.decode())

        assert "progress" in seen
        assert last_id not in [event_id for _, event_id, _ in rest]
        assert rest[-1][0] == "outcome"

    def test_who_has_read_the_outcome_need_not_come_back(self, omnigate: Gateway) -> None:
        job_id = omnigate.post("/v1/jobs?wait=60", RAIN).json["id"]

        answer = omnigate.get(f"/v1/jobs/{job_id}/events", {"Last-Event-ID": "outcome"})

        assert (answer.status, answer.body) == (204, b"")

    def test_a_stream_that_is_left_is_closed(self, omnigate: Gateway) -> None:
        job_id = omnigate.send(**RAIN | {"steps": LONG})
        with omnigate.opened("GET", f"/v1/jobs/{job_id}/events") as stream:
            stream.read_until("event: progress")
            self._wait_for_open_streams(omnigate, 1)  # those of tests before may be about to close

        self._wait_for_open_streams(omnigate, 0)
        assert omnigate.ask("DELETE", f"/v1/jobs/{job_id}").status == 202

    def _wait_for_open_streams(self, omnigate: Gateway, count: int) -> None:
        name = "omnifleet_gateway_open_streams"
        services.wait_until(lambda: omnigate.metrics().value(name) == count, WAIT, f"{count} open streams")


class TestCancelling:
    def test_a_job_is_cancelled_at_its_next_step(self, omnigate: Gateway) -> None:
        job_id = omnigate.send(**RAIN | {"steps": LONG})

        assert omnigate.ask("DELETE", f"/v1/jobs/{job_id}").status == 202

        cancelled = omnigate.wait(job_id)
        assert (cancelled["status"], cancelled["error"]["code"]) == ("cancelled", "JobCancelled")
        assert omnigate.get(f"/v1/jobs/{job_id}/audio").status == 410

    def test_who_waits_and_hangs_up_cancels_the_job(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        body = json.dumps(RAIN | {"steps": LONG, "text": "hung up"}).encode()
        kind = {"Content-Type": "application/json"}
        before = omnigate.metrics().value("omnifleet_gateway_abandoned_jobs_total")

        known = self._begun(fleet)
        with omnigate.opened("POST", "/v1/jobs?wait=60", kind, body):
            job_id = self._started(fleet, known)

        assert omnigate.wait(job_id)["status"] == "cancelled"
        assert omnigate.metrics().value("omnifleet_gateway_abandoned_jobs_total") == before + 1

    def test_with_a_key_to_come_back_with_the_job_goes_on(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        job, key = RAIN | {"steps": 40}, {"Idempotency-Key": "comes-back"}
        kind = {"Content-Type": "application/json", **key}

        known = self._begun(fleet)
        with omnigate.opened("POST", "/v1/jobs?wait=60", kind, json.dumps(job).encode()):
            job_id = self._started(fleet, known)

        again = omnigate.post("/v1/jobs?wait=60", job, key).json
        assert (again["id"], again["status"]) == (job_id, "succeeded")

    def _begun(self, fleet: ScriptedFleet) -> set[str]:
        """The ids of all jobs that have begun so far."""
        return {line["job_id"] for line in fleet.workers[0].lines() if line.get("action") == "job_started"}

    def _started(self, fleet: ScriptedFleet, known: set[str]) -> str:
        """The id of the job that begins now; those of other tests may still run."""
        services.wait_until(lambda: bool(self._begun(fleet) - known), WAIT, "the job runs")
        (job_id,) = self._begun(fleet) - known
        return job_id


class TestTheEnd:
    def test_who_waits_is_answered_streams_end_and_nothing_new_comes_in(
        self, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        answers: list[Answer] = []
        with gateway(fleet.environment, fleet.folder / "ending.log", key=omnigate.key) as ending:
            waiting = threading.Thread(
                target=lambda: answers.append(ending.post("/v1/jobs?wait=60", RAIN | {"steps": 40}))
            )
            followed = omnigate.send(**RAIN | {"steps": LONG})
            with ending.opened("GET", f"/v1/jobs/{followed}/events") as stream:
                stream.read_until("event: progress")
                waiting.start()
                services.wait_until(
                    lambda: ending.metrics().value("omnifleet_gateway_open_requests") == 2, WAIT, "both are open"
                )

                code = ending.process.terminate()

                rest = stream.read_to_end()
            waiting.join(WAIT)

        assert code == 0
        assert (answers[0].status, answers[0].json["status"]) == (200, "succeeded")
        assert "outcome" not in rest
        # Its reader goes on elsewhere: the job was not stopped.
        assert omnigate.get(f"/v1/jobs/{followed}").json["status"] == "running"
        omnigate.ask("DELETE", f"/v1/jobs/{followed}")
        assert "Traceback" not in ending.process.log.read_text()
