"""What jobs make is heard and read over HTTP while they make it, through kills, errors and callers who hang up."""

from __future__ import annotations

import base64
import http.client
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
import openai
import pytest
import soundfile
from omnifleet_shared.keys import STREAM_KEY
from support import scripted_fleet, services
from support.data import media_files
from support.fork_server import ForkServer
from support.gateway.process import LONG, NODE_TEST, WAIT, Gateway, events, new_key
from support.scripted_fleet import ScriptedFleet

SENTENCES = "One more word is said in this sentence of them. " * 8
"""Too much for one clip."""
SPEECH = {"model": "audio-omni", "voice": "default", "input": SENTENCES}
MUSIC = {"task": "generate.t2m", "text": "a waltz", "seconds": 35, "steps": 100, "seed": 11, "stream": True}
WINDOWS = [1, 2, 3, 4]
CALL = media_files.wav(2.0, 16_000)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[ScriptedFleet]:
    with scripted_fleet.scripted_fleet(tmp_path_factory.mktemp("streams"), fork_server) as started:
        start_worker(started)
        yield started


@pytest.fixture
def held(fleet: ScriptedFleet) -> Iterator[ExitStack]:
    """Holds the worker behind the first part of what it is asked for, until it is closed."""
    with ExitStack() as stack:
        stack.enter_context(fleet.held(150))
        yield stack


@pytest.fixture
def client(omnigate: Gateway) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{omnigate.url}/v1", api_key=omnigate.key, max_retries=0, timeout=WAIT) as client:
        yield client


def start_worker(fleet: ScriptedFleet) -> None:
    """One whose 100 steps take a second or two."""
    fleet.start(SCRIPTED_STEP_SECONDS="0.01")


def replace_worker(fleet: ScriptedFleet) -> None:
    fleet.workers[-1].kill()
    start_worker(fleet)


def status(omnigate: Gateway, job_id: str) -> str:
    return str(omnigate.get(f"/v1/jobs/{job_id}").json["status"])


def result_of(omnigate: Gateway, job_id: str) -> dict[str, Any]:
    job = omnigate.wait(job_id)
    assert job["status"] == "succeeded", job
    return job["result"]  # type: ignore[no-any-return]


def samples(wav: bytes) -> np.ndarray:
    decoded: Any = soundfile.read(io.BytesIO(wav), dtype="int16")[0]
    return decoded


def sound_of(omnigate: Gateway, job_id: str) -> np.ndarray:
    return samples(omnigate.get(f"/v1/jobs/{job_id}/audio").body)


class TestEvents:
    def test_parts_come_while_the_job_runs_and_are_its_result(self, omnigate: Gateway, held: ExitStack) -> None:
        job_id = omnigate.send(**MUSIC)

        with omnigate.opened("GET", f"/v1/jobs/{job_id}/events") as stream:
            begun = stream.read_until("event: part")
            assert status(omnigate, job_id) == "running"
            held.close()
            found = events(begun + stream.read_until("event: outcome") + stream.read_until("\n\n"))

        parts = self.parts(found)
        assert {part["kind"] for part in parts} == {"audio"}
        assert [part["number"] for part in parts] == WINDOWS
        assert np.array_equal(self.heard(omnigate, parts), sound_of(omnigate, job_id))
        assert len({event_id for _, event_id, _ in found}) == len(found)

    def test_behind_any_event_come_those_that_follow_it(self, omnigate: Gateway) -> None:
        job_id = omnigate.send(task="understand", question="What is heard?", max_new_tokens=80, stream=True)
        path = f"/v1/jobs/{job_id}/events"
        found = events(omnigate.get(path).body.decode())
        texts = [part["text"] for part in self.parts(found)]
        assert len(texts) >= 2
        assert "".join(texts) == result_of(omnigate, job_id)["text"]

        for place, (_, event_id, _) in enumerate(found[:-1]):
            rest = events(omnigate.get(path, {"Last-Event-ID": event_id}).body.decode())

            given = [*self.parts(found[: place + 1]), *self.parts(rest)]
            assert [part["text"] for part in given] == texts
            assert rest[-1] == found[-1]

    def test_a_killed_worker_neither_repeats_nor_contradicts_a_part(
        self, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        job_id = omnigate.send(**MUSIC)

        with omnigate.opened("GET", f"/v1/jobs/{job_id}/events") as stream:
            begun = stream.read_until("event: part")
            replace_worker(fleet)
            found = events(begun + stream.read_until("event: outcome") + stream.read_until("\n\n"))

        parts = self.parts(found)
        assert found[-1][2]["result"]["attempts"] == 2
        assert [part["number"] for part in parts] == WINDOWS
        assert np.array_equal(self.heard(omnigate, parts), sound_of(omnigate, job_id))

    def test_the_sound_of_a_part_is_a_file(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        job_id = omnigate.send(**MUSIC)
        path = f"/v1/jobs/{job_id}/parts"
        early = omnigate.get(f"{path}/4")
        result_of(omnigate, job_id)

        whole, some = (omnigate.get(f"{path}/4", header) for header in (None, {"Range": "bytes=4-9"}))

        assert (early.status, early.error["code"], "retry-after" in early.headers) == (409, "ResultTimeout", True)
        assert (whole.status, whole.headers["content-type"]) == (200, "audio/wav")
        assert (some.status, some.body) == (206, whole.body[4:10])
        assert omnigate.get(f"{path}/5").error["code"] == "MediaNotFound"
        assert omnigate.get(f"{path}/0").status == 400
        stranger = omnigate.with_key(new_key(fleet.settings.redis_url, "other"))
        assert stranger.get(f"{path}/4").status == 404

    def test_a_part_that_cannot_be_read_ends_the_stream_of_its_own_job_alone(
        self, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        spoilt, sound = (omnigate.send(**MUSIC | {"steps": LONG, "stream": False}) for _ in range(2))
        with omnigate.opened("GET", f"/v1/jobs/{sound}/events") as other:
            services.wait_until(lambda: status(omnigate, spoilt) == "running", WAIT, "it runs")
            fleet.redis.client().rpush(STREAM_KEY.format(job_id=spoilt), b"no record")

            found = events(omnigate.get(f"/v1/jobs/{spoilt}/events").body.decode())

            for job_id in (spoilt, sound):
                omnigate.ask("DELETE", f"/v1/jobs/{job_id}")
            other.read_until("event: outcome")
            assert "JobCancelled" in other.read_until("\n\n")
        assert (found[-1][0], found[-1][2]["error"]["code"]) == ("outcome", "InvalidMessage")

    def parts(self, found: list[tuple[str, str, Any]]) -> list[Any]:
        return [data for name, _, data in found if name == "part"]

    def heard(self, omnigate: Gateway, parts: list[Any]) -> np.ndarray:
        return np.concatenate([samples(omnigate.get(part["audio"]["path"]).body) for part in parts])


class TestSpeech:
    @pytest.mark.parametrize(("form", "kind"), [("mp3", "audio/mpeg"), ("pcm", "audio/pcm")])
    def test_it_is_heard_while_it_is_made(
        self, client: Any, omnigate: Gateway, held: ExitStack, form: Any, kind: str
    ) -> None:
        with client.audio.speech.with_streaming_response.create(**SPEECH, response_format=form) as said:
            job_id, chunks = said.headers["x-job-id"], said.iter_bytes()
            first = next(chunks)
            assert status(omnigate, job_id) == "running"
            held.close()
            audio = first + b"".join(chunks)

        assert said.headers["content-type"] == kind
        assert "content-length" not in said.headers
        seconds = result_of(omnigate, job_id)["audio"]["seconds"]
        assert self.seconds(audio, form) == pytest.approx(seconds, abs=0.1)

    def seconds(self, audio: bytes, form: str) -> float:
        with av.open(io.BytesIO(audio), "r", format="s16le" if form == "pcm" else None) as file:
            frames = list(file.decode(audio=0))
            return sum(frame.samples for frame in frames) / (24_000 if form == "pcm" else frames[0].sample_rate)

    def test_a_short_one_comes_whole_with_its_length(self, client: Any) -> None:
        said = client.audio.speech.create(**SPEECH | {"input": "Hello."}, response_format="wav")

        assert int(said.response.headers["content-length"]) == len(said.read())

    @pytest.mark.parametrize("stream_format", ["audio", "sse"])
    def test_a_killed_worker_neither_repeats_nor_contradicts_what_was_heard(
        self, client: Any, omnigate: Gateway, fleet: ScriptedFleet, stream_format: Any
    ) -> None:
        with client.audio.speech.with_streaming_response.create(
            **SPEECH, response_format="wav", stream_format=stream_format
        ) as said:
            chunks = said.iter_bytes()
            first = next(chunks)
            replace_worker(fleet)
            answer = first + b"".join(chunks)

        job_id = said.headers["x-job-id"]
        assert result_of(omnigate, job_id)["attempts"] == 2
        wav = answer if stream_format == "audio" else self.joined(answer)
        assert np.array_equal(samples(wav), sound_of(omnigate, job_id))

    def joined(self, answer: bytes) -> bytes:
        """The audio of OpenAI's events."""
        told = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: ")]
        assert [one["type"] for one in told] == ["speech.audio.delta"] * (len(told) - 1) + ["speech.audio.done"]
        assert told[-1]["usage"] == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        return b"".join(base64.b64decode(one["audio"]) for one in told[:-1])

    @pytest.mark.parametrize("stream_format", ["audio", "sse"])
    def test_who_hangs_up_in_the_middle_cancels_the_job(self, omnigate: Gateway, stream_format: str) -> None:
        before = omnigate.metrics().value("omnifleet_gateway_abandoned_jobs_total")

        job_id = self.begin_and_leave(omnigate, {"stream_format": stream_format})

        assert omnigate.wait(job_id)["status"] == "cancelled"
        assert omnigate.metrics().value("omnifleet_gateway_abandoned_jobs_total") == before + 1

    def test_with_a_key_to_come_back_with_it_is_heard_from_the_beginning(self, omnigate: Gateway) -> None:
        key = {"Idempotency-Key": "comes-back"}
        job_id = self.begin_and_leave(omnigate, {}, key)

        again = omnigate.post("/v1/audio/speech", SPEECH | {"response_format": "wav"}, key)

        assert again.headers["x-job-id"] == job_id
        assert np.array_equal(samples(again.body), sound_of(omnigate, job_id))

    def begin_and_leave(self, omnigate: Gateway, fields: dict[str, str], headers: dict[str, str] | None = None) -> str:
        """Hang up once something was heard; gives the job's id."""
        body = json.dumps(SPEECH | {"response_format": "wav"} | fields).encode()
        with omnigate.opened("POST", "/v1/audio/speech", JSON | (headers or {}), body) as stream:
            head = stream.read_until("\r\n\r\n")
            stream.read_some(1000)
        return head.lower().split("x-job-id: ")[1].split("\r")[0]

    def test_an_error_in_the_middle_leaves_the_audio_without_an_end(self, omnigate: Gateway) -> None:
        body = json.dumps(SPEECH | {"response_format": "wav"}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", omnigate.port, timeout=WAIT)
        connection.request("POST", "/v1/audio/speech", body, JSON | {"Authorization": f"Bearer {omnigate.key}"})
        answer = connection.getresponse()
        answer.read(1000)

        omnigate.ask("DELETE", f"/v1/jobs/{answer.headers['x-job-id']}")

        with pytest.raises(http.client.IncompleteRead):
            answer.read()
        connection.close()

    def test_an_error_in_the_middle_is_the_last_event(self, client: Any, omnigate: Gateway) -> None:
        with client.audio.speech.with_streaming_response.create(**SPEECH, stream_format="sse") as said:
            lines = said.iter_lines()
            next(line for line in lines if "speech.audio.delta" in line)
            omnigate.ask("DELETE", f"/v1/jobs/{said.headers['x-job-id']}")
            name, data = [line for line in lines if line][-2:]

        error = json.loads(data.removeprefix("data: "))["error"]
        assert (name, error["code"]) == ("event: error", "JobCancelled")
        assert set(error) >= {"message", "type", "param"}


class TestTranscripts:
    def transcribe(self, client: Any) -> Any:
        return client.audio.transcriptions.create(model="audio-omni", file=("call.wav", CALL), stream=True)

    def test_words_come_as_they_are_written(self, client: Any, omnigate: Gateway, held: ExitStack) -> None:
        stream = self.transcribe(client)
        first, job_id = next(stream), stream.response.headers["x-job-id"]
        assert status(omnigate, job_id) == "running"
        held.close()

        *deltas, done = [first, *stream]

        assert len(deltas) >= 2
        assert {event.type for event in deltas} == {"transcript.text.delta"}
        assert (done.type, done.text) == ("transcript.text.done", "".join(event.delta for event in deltas))
        assert result_of(omnigate, job_id)["text"] == done.text

    def test_a_killed_worker_takes_no_word_back(self, client: Any, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        stream = self.transcribe(client)
        first = next(stream)
        replace_worker(fleet)

        *deltas, done = [first, *stream]

        assert done.text == "".join(event.delta for event in deltas)
        result = result_of(omnigate, stream.response.headers["x-job-id"])
        assert (result["attempts"], result["text"]) == (2, done.text)

    def test_an_error_in_the_middle_is_the_clients_own(self, client: Any, omnigate: Gateway) -> None:
        stream = self.transcribe(client)
        next(stream)

        omnigate.ask("DELETE", f"/v1/jobs/{stream.response.headers['x-job-id']}")

        with pytest.raises(openai.APIError) as failed:
            list(stream)
        assert failed.value.code == "JobCancelled"

    def test_who_hangs_up_cancels_the_job(self, client: Any, omnigate: Gateway) -> None:
        with self.transcribe(client) as stream:
            next(stream)

        assert omnigate.wait(stream.response.headers["x-job-id"])["status"] == "cancelled"


def test_the_client_for_node_hears_and_reads_streams(omnigate: Gateway, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_TEST / "node_modules").exists():
        services.missing("node, or OpenAI's client for it", f"npm ci --prefix {NODE_TEST}")
    (tmp_path / "call.wav").write_bytes(CALL)
    arguments = [f"{omnigate.url}/v1", str(omnigate.key), str(tmp_path), SENTENCES]

    done = subprocess.run(
        [node, str(NODE_TEST / "stream.mjs"), *arguments], capture_output=True, text=True, timeout=WAIT
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wasRunning"] == "running"
    assert np.array_equal(samples((tmp_path / "speech.wav").read_bytes()), sound_of(omnigate, told["job"]))
    assert len(told["deltas"]) >= 2
    assert "".join(told["deltas"]) == told["text"]
    assert told["failed"] == "JobCancelled"
