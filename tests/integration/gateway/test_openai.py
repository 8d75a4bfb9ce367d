"""OpenAI's own clients, unmodified, at a real gateway before a real worker with a tiny checkpoint."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import soundfile
from omnifleet import Client, FleetSettings
from support import processes, services
from support.data import media_files
from support.data.adapters import write_adapter
from support.gateway.process import NODE_TEST, WAIT, Gateway, Part, gateway, new_key

SPEECH = media_files.wav(2.0, 16_000)


@pytest.fixture(scope="module")
def omnigate(
    fleet_environment: dict[str, str], fleet_worker: processes.Process, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    key = new_key(fleet_environment["OMNIFLEET_REDIS_URL"])
    with gateway(fleet_environment, tmp_path_factory.mktemp("openai") / "gateway.log", key=key) as running:
        yield running
    assert running.faults() == []


@pytest.fixture
def client(omnigate: Gateway) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{omnigate.url}/v1", api_key=omnigate.key, max_retries=0, timeout=WAIT) as client:
        yield client


def decoded(audio: bytes) -> tuple[float, int]:
    """Seconds and samples a second of an audio file."""
    import av

    with av.open(io.BytesIO(audio), "r") as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
        rate = file.streams.audio[0].rate
    return samples / rate, rate


class TestSpeech:
    @pytest.mark.parametrize(("form", "kind"), [("opus", "audio/ogg"), ("flac", "audio/flac")])
    def test_a_text_is_said(self, client: Any, form: Any, kind: str) -> None:
        said = client.audio.speech.create(model="audio-omni", voice="default", input="Hello.", response_format=form)

        seconds, rate = decoded(said.read())
        assert seconds > 0.5 and rate == (48_000 if form == "opus" else 44_100)
        assert said.response.headers["content-type"] == kind
        assert said.response.headers["x-job-id"]

    def test_without_a_format_it_is_mp3(self, client: Any, tmp_path: Path) -> None:
        with client.audio.speech.with_streaming_response.create(
            model="audio-omni", voice="default", input="Hello."
        ) as said:
            said.stream_to_file(tmp_path / "hello.mp3")

        assert said.headers["content-type"] == "audio/mpeg"
        assert soundfile.info(tmp_path / "hello.mp3").format == "MP3"

    def test_it_comes_as_events_too(self, client: Any) -> None:
        with client.audio.speech.with_streaming_response.create(
            model="audio-omni", voice="default", input="Hello.", response_format="wav", stream_format="sse"
        ) as said:
            lines = [line.removeprefix("data: ") for line in said.iter_lines() if line.startswith("data: ")]
        events = [json.loads(line) for line in lines]

        assert [event["type"] for event in events][-1] == "speech.audio.done"
        assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}

    def test_voices_are_listed_and_spoken_with(self, client: Any, omnigate: Gateway, settings: FleetSettings) -> None:
        with Client(settings) as omni:
            omni.voices.add("anna", SPEECH, text="Good morning.", consent="a test's own")
        try:
            listed = {voice["id"] for voice in omnigate.get("/v1/voices").json["data"]}
            said = client.audio.speech.create(model="audio-omni", voice="anna", input="Hello.", response_format="wav")
        finally:
            with Client(settings) as omni:
                omni.voices.remove("anna")

        assert listed == {"default", "anna"}
        assert soundfile.info(io.BytesIO(said.read())).frames > 0

    def test_an_uploaded_recording_is_a_voice(self, client: Any, omnigate: Gateway) -> None:
        uri = omnigate.post_form("/v1/uploads", Part("file", SPEECH, "voice.wav")).json["uri"]

        said = client.audio.speech.create(
            model="audio-omni", voice={"id": uri}, input="Hello.", response_format="wav", timeout=WAIT
        )

        assert soundfile.info(io.BytesIO(said.read())).frames > 0

    def test_adapters_are_listed_and_spoken_with(
        self, client: Any, omnigate: Gateway, settings: FleetSettings, checkpoint: Path, tmp_path: Path
    ) -> None:
        folder, request = write_adapter(tmp_path / "adapter", checkpoint), {"model": "audio-omni", "voice": "default"}
        adapted = {"adapter": "rain", "adapter_scale": 0.5}
        with Client(settings) as omni:
            added = omni.adapters.add("rain", folder, licence="CC0-1.0")
            try:
                listed = {one["id"] for one in omnigate.get("/v1/adapters").json["data"]}
                said = client.audio.speech.create(**request, input="Hello.", response_format="wav", extra_body=adapted)
                used = omni.job(said.response.headers["x-job-id"]).result(WAIT).adapter
            finally:
                omni.adapters.remove("rain")

        assert listed == {"rain"}
        assert used is not None and (used.sha256, used.scale) == (added.sha256, 0.5)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"extra_body": {"adapter": "nobody-s"}}, "adapter"),
            ({"extra_body": {"adapter": "../x"}}, "adapter"),
            ({"extra_body": {"adapter_scale": 0.5}}, "adapter_scale"),
            ({"voice": "alloy"}, "voice"),
            ({"voice": "voice:../../x"}, "voice"),
            ({"voice": "file:///etc/passwd"}, "voice"),
            ({"speed": 1.5}, "speed"),
            ({"speed": 9}, "speed"),
            ({"instructions": "Whisper."}, "instructions"),
            ({"model": "tts-1"}, "model"),
            ({"response_format": "wma"}, "response_format"),
            ({"input": ""}, "input"),
            ({"input": "Привет, как дела?"}, "input"),
            ({"extra_body": {"colour": "red"}}, "colour"),
        ],
    )
    def test_what_cannot_be_honoured_is_refused_by_its_name(
        self, client: Any, change: dict[str, Any], field: str
    ) -> None:
        request = {"model": "audio-omni", "voice": "default", "input": "Hello."} | change

        with pytest.raises(openai.APIStatusError) as refused:
            client.audio.speech.create(**request)

        assert refused.value.status_code in (400, 422)
        assert refused.value.param == field
        assert refused.value.type == "invalid_request_error"

    def test_a_wrong_key_is_its_clients_own_error(self, omnigate: Gateway) -> None:
        stranger = openai.OpenAI(base_url=f"{omnigate.url}/v1", api_key="sk-wrong", max_retries=0)

        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()


class TestTranscriptions:
    def transcribe(self, client: Any, **fields: Any) -> Any:
        return client.audio.transcriptions.create(model="audio-omni", file=("call.wav", SPEECH), **fields)

    def test_a_recording_is_written_down(self, client: Any) -> None:
        assert isinstance(self.transcribe(client, language="en", prompt="A call.").text, str)

    def test_as_text(self, client: Any) -> None:
        text = self.transcribe(client, response_format="text")

        assert isinstance(text, str) and text.endswith("\n") and not text.startswith("{")

    @pytest.mark.parametrize("form", ["srt", "vtt"])
    def test_as_subtitles(self, client: Any, form: str) -> None:
        text = self.transcribe(client, response_format=form)

        assert isinstance(text, str)
        assert text.startswith("WEBVTT") if form == "vtt" else "-->" in text or not text.strip()

    def test_with_times(self, client: Any) -> None:
        found = self.transcribe(
            client, response_format="verbose_json", language="en", timestamp_granularities=["word", "segment"]
        )

        assert (found.duration, found.language) == (2.0, "en")
        assert [word.word for word in found.words]
        assert all(0 <= word.start <= word.end <= 2.0 for word in found.words)
        assert [segment.id for segment in found.segments] == list(range(len(found.segments)))

    def test_segments_alone_are_the_default_of_verbose(self, client: Any) -> None:
        found = self.transcribe(client, response_format="verbose_json")

        assert (found.words, found.language) == (None, None)
        for segment in found.segments:
            # What the model does not tell is not made up.
            assert (segment.avg_logprob, segment.no_speech_prob, segment.tokens) == (None, None, [])
            assert (segment.seek, segment.temperature) == (round(segment.start * 100), 0)
            assert segment.compression_ratio > 0

    def test_it_comes_as_events_too(self, client: Any) -> None:
        *deltas, done = list(self.transcribe(client, stream=True))

        assert {event.type for event in deltas} == {"transcript.text.delta"}
        assert (done.type, done.text) == ("transcript.text.done", "".join(event.delta for event in deltas))

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
            (
                {"response_format": "verbose_json", "timestamp_granularities": ["phoneme"]},
                "timestamp_granularities[].0",
            ),
            ({"stream": True, "response_format": "srt"}, "stream"),
            ({"language": "ru"}, "language"),
            ({"temperature": 3}, "temperature"),
            ({"include": ["logprobs"]}, "include[]"),
            ({"chunking_strategy": {"type": "server_vad"}}, "chunking_strategy[type]"),
        ],
    )
    def test_what_cannot_be_honoured_is_refused_by_its_name(
        self, client: Any, fields: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            self.transcribe(client, **fields)

        assert refused.value.param == field

    def test_what_is_no_audio_is_the_callers_fault(self, client: Any) -> None:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.audio.transcriptions.create(model="audio-omni", file=("call.wav", b"no audio"))

        assert refused.value.code == "MediaUnreadable"


class TestModels:
    def test_models_are_listed(self, client: Any) -> None:
        assert [model.id for model in client.models.list()] == ["audio-omni"]
        known = client.models.retrieve("audio-omni").model_dump()
        assert (known["owned_by"], known["queue"], known["live"]) == ("omnifleet", "audio-omni", True)
        # What the worker reports of its tiny checkpoint, and not what the published model allows.
        assert known["commercial_use"] is True
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4o")


def test_the_client_for_node_speaks_and_transcribes(omnigate: Gateway, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_TEST / "node_modules").exists():
        services.missing("node, or OpenAI's client for it", f"npm ci --prefix {NODE_TEST}")
    (tmp_path / "call.wav").write_bytes(SPEECH)

    done = subprocess.run(
        [node, str(NODE_TEST / "call.mjs"), f"{omnigate.url}/v1", str(omnigate.key), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=WAIT,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert soundfile.info(tmp_path / "hello.flac").frames > 0
    assert isinstance(told["text"], str)
    assert told["models"] == ["audio-omni"]
    assert told["refused"] == {"status": 400, "param": "voice", "code": "InvalidJob"}
