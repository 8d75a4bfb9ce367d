"""Real speech is made and changed, and a recogniser hears the words: what the job promises, with small real models.

A synthesiser says the sentences and the new words, Whisper finds the words and hears the result.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import LanguageNotSupported
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engines.table import load_model
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.settings import WorkerSettings
from support.engines.running_engine import running
from support.speech import espeak_engine
from support.speech.real_speech import SPOKEN_RATE, heard, speak
from support.speech.spoken_engine import NAME
from support.speech.whisper_folder import write_whisper_folder
from torchaudio.functional import edit_distance


class Desk:
    """Runs jobs on the loaded models, one after the other."""

    def __init__(self, runner: JobRunner, engine: Engine, storage: FolderStorage) -> None:
        self._runner, self._engine, self._storage = runner, engine, storage

    def put(self, samples: np.ndarray) -> dict[str, Any]:
        file = io.BytesIO()
        soundfile.write(file, samples, SPOKEN_RATE, format="WAV", subtype="PCM_16")
        return self._storage.put_input(self._storage.describe_input(file), file).model_dump()

    def run(
        self, namespace: str, task: dict[str, Any], model: str = NAME, language: str | None = None
    ) -> tuple[JobResult, np.ndarray]:
        head = {"schema_version": 8, "model": model, "namespace": namespace, "seed": 5, "commercial": True}
        head |= {} if language is None else {"language": language}
        result = self._runner.run(JobContext(read_job(head | {"task": task}), self._engine))
        assert result.artifact is not None
        stored = self._storage.get(result.artifact.uri, max_bytes=10**8)
        return result, soundfile.read(io.BytesIO(stored), dtype="int16")[0]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("models")
    recogniser = write_whisper_folder(folder / "whisper")
    settings = WorkerSettings(checkpoint=folder, engine="support.speech.spoken_engine", recogniser=recogniser)
    yield from running_desk(settings, tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Of many languages, and no recogniser."""
    folder = tmp_path_factory.mktemp("voices")
    yield from running_desk(WorkerSettings(checkpoint=folder, engine="support.speech.espeak_engine"), folder)


def running_desk(settings: WorkerSettings, folder: Path) -> Iterator[Desk]:
    """A desk with the model of the settings, whose storage is a folder."""
    loaded, storage = load_model(settings), FolderStorage(folder)
    with running(loaded) as engine:
        yield Desk(JobRunner(loaded.model, storage, settings), engine, storage)


@pytest.mark.parametrize(
    ("said", "desc", "after"),
    [
        (
            "We will meet on Monday in front of the station.",
            "replace 'Monday' with 'Friday'",
            "we will meet on friday in front of the station",
        ),
        (
            "She said hello and then walked slowly down the street.",
            "delete 'slowly'",
            "she said hello and then walked down the street",
        ),
        (
            "Please replace the old battery with a new one before tomorrow morning.",
            "replace 'old battery' with 'kitchen window'; replace 'tomorrow morning' with 'Sunday evening'",
            "please replace the kitchen window with a new one before sunday evening",
        ),
    ],
)
def test_the_new_words_are_heard_and_the_old_are_not(desk: Desk, said: str, desc: str, after: str) -> None:
    source = speak(said)

    result, edited = desk.run("edit", {"name": "speech", "audio": desk.put(source), "desc": desc})

    assert result.edits
    text = " ".join(heard(edited / 32768))
    for span in result.edits:
        assert span.new.lower() in text and span.old.lower() not in text
    assert likeness(text, after) > 0.9  # to the word on most processors: the synthesiser's arithmetic is theirs
    assert_rest_untouched(result, edited, _as_stored(source))


def test_of_what_is_said_at_most_one_word_in_ten_is_heard_wrong(desk: Desk) -> None:
    texts = [
        "The quick brown fox jumps over the lazy dog near the river.",
        "Tomorrow morning we take the early train to the city.",
        "A worker that dies leaves its message to another one.",
    ]

    said = [desk.run("generate", {"name": "tts", "text": text})[1] / 32768 for text in texts]

    words = [text.lower().rstrip(".").split() for text in texts]
    errors = sum(edit_distance(one, heard(sound)) for one, sound in zip(words, said, strict=True))
    assert errors <= sum(map(len, words)) / 10


def test_what_is_said_is_said_again_in_the_other_voice(desk: Desk) -> None:
    text = "Every worker takes one message and answers it exactly once."
    task = {"name": "vc", "audio": desk.put(speak(text, speed=0.9)), "ref": desk.put(speak("This is my own voice."))}

    _, converted = desk.run("generate", task)

    assert likeness(" ".join(heard(converted / 32768)), text.lower().rstrip(".")) > 0.9


class TestOtherLanguages:
    @staticmethod
    def say(voices: Desk, text: str, language: str) -> np.ndarray:
        return voices.run("generate", {"name": "tts", "text": text}, model=espeak_engine.NAME, language=language)[1]

    def test_names_in_a_dutch_sentence_are_heard(self, voices: Desk) -> None:
        said = self.say(voices, "De trein stopt in Amsterdam en in Berlijn.", "nl")

        words = heard(said / 32768, espeak_engine.RATE)
        assert "amsterdam" in words and "berlin" in words

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("ru", "Привет, мир. Это проверка голоса."),
            ("hi", "नमस्ते दुनिया, यह एक परीक्षण है।"),
            ("ar", "مرحبا بالعالم، هذا اختبار."),
            ("es", "Hola, mundo. Esto es una prueba."),
        ],
    )
    def test_the_same_text_sounds_the_same_and_in_another_voice_differently(
        self, voices: Desk, language: str, text: str
    ) -> None:
        said = self.say(voices, text, language)

        assert len(said) > espeak_engine.RATE
        assert np.abs(said).max() > 3000
        assert np.array_equal(self.say(voices, text, language), said)
        assert not np.array_equal(self.say(voices, text, "nl"), said)

    def test_a_language_that_it_has_no_voice_for_is_refused(self, voices: Desk) -> None:
        with pytest.raises(LanguageNotSupported, match="'zu'"):
            self.say(voices, "Sawubona", "zu")


def likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def _as_stored(samples: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, SPOKEN_RATE, format="WAV", subtype="PCM_16")
    stored: np.ndarray = soundfile.read(io.BytesIO(file.getvalue()), dtype="int16")[0]
    return stored


def assert_rest_untouched(result: JobResult, edited: np.ndarray, source: np.ndarray) -> None:
    """Every sample outside the reported spans is the source's, bit for bit."""
    there, here = [0], [0]
    for span in result.edits or ():
        there += [round(span.source_start * SPOKEN_RATE), round(span.source_end * SPOKEN_RATE)]
        here += [round(span.start * SPOKEN_RATE), round(span.end * SPOKEN_RATE)]
    kept = list(zip(pairwise([*there, len(source)]), pairwise([*here, len(edited)]), strict=True))[::2]
    for (begin, end), (first, last) in kept:
        np.testing.assert_array_equal(edited[first:last], source[begin:end])
    assert sum(end - begin for (begin, end), _ in kept) > len(source) / 2
