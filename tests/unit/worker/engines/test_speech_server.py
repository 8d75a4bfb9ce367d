"""Speech servers as engines, in both dialects: what they are asked, what comes of it, and how they fail."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import (
    CheckpointInvalid,
    DeadlineExceeded,
    InvalidJob,
    InvalidSetting,
    JobCancelled,
    JobFailed,
    ModelServerUnavailable,
    OmnifleetError,
)
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.speech_server import client
from omnifleet_worker.engines.table import load_model
from omnifleet_worker.models.speech_model import ReferenceVoice, SpeechInputs
from omnifleet_worker.settings import WorkerSettings
from pydantic import SecretStr
from support import services
from support.engines.running_engine import running
from support.speech.fake_server import FakeSpeechServer
from support.tls.certificates import Certificates

TEXTS = ["Привет, мир.", "你好世界", "مرحبا بالعالم", "नमस्ते दुनिया"]
CARD = {
    "name": "s2-pro",
    "revision": "1",
    "licence": "Fish Audio Research License",
    "tasks": {"generate.tts": {"languages": ["en", "ru"]}},
    "sample_rate": 44_100,
    "cloning": True,
    "server": {"model": "s2", "voice": "vivian", "languages": {"ru": "Russian"}},
}
VOICE = ReferenceVoice(wave=np.sin(np.arange(800) / 9).astype(np.float32), sample_rate=8000, text="That is me.")


@pytest.fixture
def fake() -> Iterator[FakeSpeechServer]:
    with FakeSpeechServer().running() as server:
        yield server


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAITS", (0.0, 0.0))


def settings_of(folder: Path, engine: str, url: str, **more: Any) -> WorkerSettings:
    folder.mkdir(exist_ok=True)
    (folder / "card.json").write_text(json.dumps(CARD | {"engine": engine} | more.pop("card", {})))
    return WorkerSettings(checkpoint=folder, server_url=url, **more)


@pytest.fixture(params=["fish", "openai"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, fake: FakeSpeechServer) -> WorkerSettings:
    return settings_of(tmp_path, request.param, fake.url, server_timeout=120)


def say(loaded: LoadedModel, *texts: SpeechInputs) -> list[Any]:
    """Outcomes, or errors."""
    with closing(loaded), running(loaded) as engine:
        requests = [engine.submit(Request(inputs=text)) for text in texts]
        return [request.outcome.exception(300) or request.outcome.result() for request in requests]


@contextmanager
def begun(loaded: LoadedModel, fake: FakeSpeechServer, text: str = "Hello.", asked: int = 1) -> Iterator[Request]:
    """A text that the server was asked for, as that many were, until the block ends."""
    with running(loaded) as engine:
        try:
            request = engine.submit(Request(inputs=inputs(text)))
            services.wait_until(lambda: len(fake.asked) == asked, what="the request")
            yield request
        finally:
            fake.speak.set()


def inputs(text: str = "Hello.", *, seed: int = 5, **more: Any) -> SpeechInputs:
    return SpeechInputs(text=text, seed=seed, **more)


def pcm(fake: FakeSpeechServer, text: str, seed: int) -> np.ndarray:
    return np.frombuffer(fake.say(text, seed), "<i2").astype(np.float32)[None] / 2**15


class TestSpeech:
    def test_texts_come_as_the_server_says_them_whatever_else_it_says(
        self, settings: WorkerSettings, fake: FakeSpeechServer
    ) -> None:
        texts = [inputs(text, seed=seed) for seed, text in enumerate(TEXTS)]

        outcomes = say(load_model(settings), *texts)

        for one, outcome in zip(texts, outcomes, strict=True):
            assert np.array_equal(outcome, pcm(fake, one.text, one.seed))

    def test_its_card_says_what_it_may_do(self, settings: WorkerSettings) -> None:
        capabilities = load_model(settings).model.capabilities

        assert (capabilities.name, capabilities.licence) == ("s2-pro", "Fish Audio Research License")
        assert (capabilities.commercial, capabilities.sample_rate) == (False, 44_100)
        assert capabilities.needs_transcript == (capabilities.engine == "fish")

    def test_texts_are_asked_for_at_the_same_time(self, settings: WorkerSettings, fake: FakeSpeechServer) -> None:
        fake.silent = True
        loaded = load_model(settings.model_copy(update={"server_places": 2}))
        with running(loaded) as engine:
            requests = [engine.submit(Request(inputs=inputs(text))) for text in ("one", "two", "three")]

            services.wait_until(lambda: len(fake.asked) == 2, what="two requests")
            fake.speak.set()

            assert [request.outcome.result(300).shape[1] for request in requests] == [1200, 1200, 2000]


class TestEnds:
    """A text that nobody wants any more: what is seen at the server, which nothing else tells."""

    @pytest.mark.parametrize("silence", ["silent", "stuck"])
    @pytest.mark.parametrize("end", ["cancelled", "expired"])
    def test_the_connection_is_closed_whatever_the_server_is_at(
        self, settings: WorkerSettings, fake: FakeSpeechServer, silence: str, end: str
    ) -> None:
        setattr(fake, silence, True)
        loaded = load_model(settings.model_copy(update={"server_timeout": 3600}))
        with begun(loaded, fake) as request:
            services.wait_until(lambda: fake.silences == 1, what="the server's silence")
            if end == "cancelled":
                request.cancel()
            else:
                request.deadline = time.time() - 1

            error = request.outcome.exception(300)

            assert isinstance(error, JobCancelled if end == "cancelled" else DeadlineExceeded)
            services.wait_until(lambda: fake.gone == 1, what="the server to be hung up on")
        assert len(fake.asked) == 1

    def test_other_texts_are_said_to_their_end(self, settings: WorkerSettings, fake: FakeSpeechServer) -> None:
        fake.silent = True
        loaded = load_model(settings.model_copy(update={"server_places": 2}))
        with begun(loaded, fake) as request, begun(loaded, fake, "Another one.", 2) as other:
            request.cancel()
            services.wait_until(lambda: fake.gone == 1, what="the server to be hung up on")
            fake.speak.set()

            assert np.array_equal(other.outcome.result(300), pcm(fake, "Another one.", 5))

    def test_a_busy_server_is_not_asked_again(
        self, settings: WorkerSettings, fake: FakeSpeechServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "WAITS", (3600.0,))
        fake.statuses = [503]
        before = threading.active_count()
        loaded = load_model(settings)
        with begun(loaded, fake) as request:
            request.cancel()

            assert isinstance(request.outcome.exception(300), JobCancelled)
        services.wait_until(lambda: threading.active_count() <= before, what="the end of the text's thread")
        assert len(fake.asked) == 1


class TestTLS:
    def test_a_certificate_of_a_stranger_is_refused(self, tmp_path: Path) -> None:
        with FakeSpeechServer(certificate=Certificates.create(tmp_path).issue("127.0.0.1")).running() as fake:
            (outcome,) = say(load_model(settings_of(tmp_path, "openai", fake.url)), inputs())

        assert isinstance(outcome, ModelServerUnavailable) and "SSL" in str(outcome)
        assert fake.asked == []

    def test_texts_are_said_and_ended_as_without(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        certificates = Certificates.create(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
        with FakeSpeechServer(certificate=certificates.issue("127.0.0.1")).running() as fake:
            loaded = load_model(settings_of(tmp_path, "openai", fake.url, server_timeout=3600))
            (outcome,) = say(loaded, inputs())
            assert np.array_equal(outcome, pcm(fake, "Hello.", 5))

            fake.silent = True
            with begun(loaded, fake, asked=2) as request:
                request.cancel()
                services.wait_until(lambda: fake.gone == 1, what="the server to be hung up on")


class TestDialects:
    def test_fish(self, fake: FakeSpeechServer, tmp_path: Path) -> None:
        say(load_model(settings_of(tmp_path, "fish", fake.url)), inputs(voice=VOICE), inputs())

        cloned, plain = fake.asked
        assert {**cloned, "references": []} == {
            "text": "Hello.",
            "format": "wav",
            "seed": 5,
            "streaming": True,
            "references": [],
        }
        ((audio, text),) = [(base64.b64decode(one["audio"]), one["text"]) for one in cloned["references"]]
        assert text == "That is me."
        samples, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
        assert rate == 8000 and np.abs(samples - VOICE.wave).max() < 1e-4
        assert plain["reference_id"] == "vivian" and "references" not in plain

    def test_openai(self, fake: FakeSpeechServer, tmp_path: Path) -> None:
        loaded = load_model(settings_of(tmp_path, "openai", fake.url))

        say(loaded, inputs(voice=VOICE, language="ru"), inputs(language="en", speed=0.5), inputs())

        cloned, english, plain = fake.asked
        head, _, audio = cloned.pop("ref_audio").partition(",")
        assert head == "data:audio/wav;base64"
        assert base64.b64decode(audio)[:4] == b"RIFF"
        common = {"input": "Hello.", "response_format": "wav", "seed": 5, "model": "s2"}
        assert cloned == common | {"language": "Russian", "ref_text": "That is me."}
        assert english == common | {"language": "en", "voice": "vivian", "speed": 0.5}
        assert plain == common | {"voice": "vivian"}


class TestFaults:
    @pytest.mark.parametrize("statuses", [[503], [500, 429]])
    def test_a_busy_server_is_asked_again(
        self, settings: WorkerSettings, fake: FakeSpeechServer, statuses: list[int]
    ) -> None:
        fake.statuses = [*statuses]

        (outcome,) = say(load_model(settings), inputs())

        assert np.array_equal(outcome, pcm(fake, "Hello.", 5))
        assert len(fake.asked) == len(statuses) + 1

    @pytest.mark.parametrize(
        ("fault", "error", "words", "asked"),
        [
            ({"statuses": [500] * 9}, ModelServerUnavailable, "answered 500: told to fail", 3),
            ({"statuses": [404]}, ModelServerUnavailable, "answered 404", 1),
            ({"statuses": [422]}, InvalidJob, "refuses it: told to fail", 1),
            ({"cut": True}, ModelServerUnavailable, "ended early", 1),
            ({"rate": 24_000}, JobFailed, "24000 Hz, and its card says 44100", 1),
            ({"key": "secret"}, ModelServerUnavailable, "refuses the worker's key", 0),
        ],
        ids=["500", "404", "422", "cut", "rate", "key"],
    )
    def test_a_fault_is_a_typed_error(
        self,
        settings: WorkerSettings,
        fake: FakeSpeechServer,
        fault: dict[str, Any],
        error: type[OmnifleetError],
        words: str,
        asked: int,
    ) -> None:
        for name, value in fault.items():
            setattr(fake, name, [*value] if isinstance(value, list) else value)

        (outcome,) = say(load_model(settings), inputs("Hello. " * 20))

        assert type(outcome) is error
        assert words in str(outcome)
        assert len(fake.asked) == asked
        assert fake.url.removeprefix("http://") not in str(outcome)

    def test_a_server_that_stays_silent_is_given_up(self, settings: WorkerSettings, fake: FakeSpeechServer) -> None:
        fake.silent = True

        (outcome,) = say(load_model(settings.model_copy(update={"server_timeout": 2.0})), inputs())

        assert isinstance(outcome, ModelServerUnavailable)
        assert len(fake.asked) == 1

    def test_a_server_that_is_not_there(self, settings: WorkerSettings) -> None:
        nowhere = settings.model_copy(update={"server_url": f"http://127.0.0.1:{services.free_port()}"})

        (outcome,) = say(load_model(nowhere), inputs())

        assert isinstance(outcome, ModelServerUnavailable)

    def test_the_right_key_opens(self, settings: WorkerSettings, fake: FakeSpeechServer) -> None:
        fake.key = "secret"

        (outcome,) = say(load_model(settings.model_copy(update={"server_key": SecretStr("secret")})), inputs())

        assert outcome.shape == (1, 2400)


class TestHealth:
    def test_it_is_the_server_s(self, settings: WorkerSettings, fake: FakeSpeechServer) -> None:
        port = services.free_port()
        loaded = load_model(settings.model_copy(update={"server_url": f"http://127.0.0.1:{port}"}))
        assert loaded.why_unwell is not None

        assert "does not answer" in (loaded.why_unwell() or "")
        with FakeSpeechServer().running(port) as late:
            assert loaded.why_unwell() is None
            late.key = "secret"
            assert "OMNIFLEET_SERVER_KEY" in (loaded.why_unwell() or "")
        loaded.close()

    def test_no_threads_are_left(self, settings: WorkerSettings) -> None:
        before = threading.active_count()

        say(load_model(settings), inputs(), inputs("Two."))

        services.wait_until(lambda: threading.active_count() <= before, what="the end of its threads")


@pytest.mark.parametrize(
    ("url", "card", "error", "field"),
    [
        (None, {}, InvalidSetting, "OMNIFLEET_SERVER_URL"),
        ("localhost:8000", {}, InvalidSetting, "OMNIFLEET_SERVER_URL"),
        ("http://localhost", {"sample_rate": None}, InvalidSetting, "sample_rate"),
        ("http://localhost", {"server": {"vioce": "x"}}, InvalidSetting, "server.vioce"),
        ("http://localhost", {"tasks": None}, CheckpointInvalid, "tasks"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, url: Any, card: dict[str, Any], error: type[OmnifleetError], field: str
) -> None:
    with pytest.raises(error, match=field):
        load_model(settings_of(tmp_path, "openai", url, card=card))
