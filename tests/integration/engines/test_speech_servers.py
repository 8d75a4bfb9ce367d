"""Workers before speech servers: what a fleet's named voices are to servers that keep none of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet import Client, InvalidJob, TaskNotSupported, VoiceNotFound
from omnifleet.request.calls import generate
from omnifleet.request.maker import JobMaker
from omnifleet_shared.storage import open_storage
from support import services
from support.data import media_files
from support.scripted_fleet import WAIT, ScriptedFleet
from support.speech.fake_server import FakeSpeechServer
from support.speech.scripted_model import speech_card

RECORDING = media_files.wav(1.0, 16_000)
Start = Callable[..., Client]


@pytest.fixture
def server() -> Iterator[FakeSpeechServer]:
    with FakeSpeechServer().running() as running:
        yield running


@pytest.fixture
def start(scripted: ScriptedFleet, server: FakeSpeechServer, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker before the server; gives a client that knows its model alone, and has the voice `anna`."""
    settings = scripted.settings.model_copy(update={"models": "scripted-speech=audio-omni"})

    def run(text: str | None = "Good morning.", **card: Any) -> Client:
        (tmp_path / "card.json").write_text(speech_card(sample_rate=44_100, **card).model_dump_json())
        scripted.start(SCRIPTED_ENGINE="real", OMNIFLEET_CHECKPOINT=str(tmp_path), OMNIFLEET_SERVER_URL=server.url)
        services.wait_until(lambda: any(one.live for one in omni.models()), WAIT, "the worker to say what it can do")
        omni.voices.add("anna", RECORDING, text=text, consent="a test's own")
        return omni

    with Client(settings) as omni:
        yield run


def sent(asked: dict[str, Any]) -> tuple[np.ndarray, str | None]:
    """The samples and the words of the voice that a server was sent, in either dialect."""
    if "references" in asked:
        ((audio, text),) = [(one["audio"], one["text"]) for one in asked["references"]]
    else:
        audio, text = asked["ref_audio"].removeprefix("data:audio/wav;base64,"), asked.get("ref_text")
    return soundfile.read(io.BytesIO(base64.b64decode(audio)), dtype="int16")[0], text


@pytest.mark.parametrize("engine", ["fish", "openai"])
def test_a_named_voice_reaches_the_server_as_its_recording(start: Start, server: FakeSpeechServer, engine: str) -> None:
    omni = start(engine=engine)

    omni.generate("tts", "Hello.", ref="voice:anna", seed=3).result(WAIT)

    samples, text = sent(server.asked[0])
    assert np.array_equal(samples, soundfile.read(io.BytesIO(RECORDING), dtype="int16")[0])
    assert text == "Good morning."


def test_it_is_asked_for_a_speed_where_the_dialect_has_one(start: Start, server: FakeSpeechServer) -> None:
    omni = start(engine="openai")

    omni.generate("tts", "Hello.", speed=1.5).result(WAIT)

    assert server.asked[0]["speed"] == 1.5
    with pytest.raises(TaskNotSupported) as refused:
        omni.generate("tts", "Hello.", seconds=2)
    assert refused.value.field == "seconds"


def test_where_words_are_needed_a_voice_without_is_refused_at_once(start: Start, server: FakeSpeechServer) -> None:
    omni = start(text=None, engine="fish")

    with pytest.raises(InvalidJob, match="needs what is said in ref") as refused:
        omni.generate("tts", "Hello.", ref="voice:anna")

    assert refused.value.field == "ref_text"
    omni.generate("tts", "Hello.", ref="voice:anna", ref_text="Good morning.").result(WAIT)
    assert sent(server.asked[0])[1] == "Good morning."


def test_a_server_whose_card_says_nothing_of_voices_gets_none(start: Start, server: FakeSpeechServer) -> None:
    omni = start(engine="openai", cloning=False)

    with pytest.raises(TaskNotSupported) as refused:
        omni.generate("tts", "Hello.", ref="voice:anna")

    assert refused.value.field == "ref"
    assert server.asked == []


def test_a_job_whose_voice_was_removed_while_it_waited_fails_with_its_error(
    start: Start, scripted: ScriptedFleet, server: FakeSpeechServer
) -> None:
    omni = start(engine="openai")
    made = JobMaker(scripted.settings, open_storage(scripted.settings)).make(generate("tts", "Hi.", ref="voice:anna"))
    job = made.job.model_copy(update={"schema_version": 8, "model": "scripted-speech"})

    omni.voices.remove("anna")
    omni.sender.transport.submit(job)

    with pytest.raises(VoiceNotFound, match="the voice 'anna' was removed") as missing:
        omni.job(job.job_id).result(WAIT)
    assert missing.value.field == "ref"
    assert server.asked == []
