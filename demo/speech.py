"""Sentences that one can hear, in English and in languages that Audio-Omni lacks, and a word of one of them changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from omnifleet import AudioResult, Client, TextResult
from rich.console import Console
from support.processes import Process, process, wait_until
from support.speech.espeak_engine import NAME as POLYGLOT
from support.speech.spoken_engine import NAME as VOICE
from support.speech.whisper_folder import write_whisper_folder
from transformers.utils.logging import disable_progress_bar

RECOGNISER = "whisper-tiny-en"
MODELS = f"audio-omni,{VOICE},{POLYGLOT},{RECOGNISER}"
"""`OMNIFLEET_MODELS` of the demo's fleet."""
SENTENCE = "We will meet on Monday in front of the station."
OLD, NEW = "Monday", "Friday"
DUTCH = "De trein stopt in Amsterdam en in Berlijn."
PLACES = ("Amsterdam", "Berlin")
"""What a recogniser that knows English alone still hears in it."""
RUSSIAN = "Здравствуйте! Поезд из Москвы придёт в понедельник."
WAIT = 120.0
"""Longest wait for one of its jobs, in seconds: an idle worker takes one or two."""
_TESTS = Path(__file__).parents[1] / "tests"


@contextmanager
def speech_workers(home: Path, fleet: Mapping[str, str]) -> Iterator[list[Process]]:
    """Run the three workers beside Audio-Omni's, and end them with the block; they may not be ready yet.

    Args:
        home: folder of their models and logs.
        fleet: environment that leads to the fleet.
    """
    recogniser = _recogniser(home / RECOGNISER)
    for name in (VOICE, POLYGLOT):
        (home / name).mkdir(exist_ok=True)  # a worker needs a folder; the voices are in their packages
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))}
    engines = {
        VOICE: {
            "OMNIFLEET_ENGINE": "support.speech.spoken_engine",
            "OMNIFLEET_RECOGNISER": str(recogniser),
            **path,
        },
        POLYGLOT: {"OMNIFLEET_ENGINE": "support.speech.espeak_engine", **path},
        RECOGNISER: {},
    }
    with ExitStack() as stack:
        workers = []
        for name, own in engines.items():
            log = home / f"worker-{name}.log"
            log.unlink(missing_ok=True)
            model = {"OMNIFLEET_QUEUE": f"audio-omni.{name}", "OMNIFLEET_CHECKPOINT": str(home / name)}
            command = [sys.executable, "-m", "omnifleet_worker", "run"]
            workers.append(stack.enter_context(process(command, log, {**fleet, **model, **own})))
        yield workers


def wait_until_all_live(omni: Client) -> None:
    """Return once a worker of each model has reported: until then jobs go to the others. Raises TimeoutError."""
    wait_until(lambda: all(model.live for model in omni.models()), WAIT, f"a live worker of each of {MODELS}")


def show_speech(omni: Client, out: Path, console: Console) -> None:
    """Say the sentence, change its word, hear both, and print what was heard. Raises SystemExit where it is wrong."""
    said = omni.generate("tts", SENTENCE, model=VOICE).result(WAIT)
    before = said.audio.save(out / "said.wav")
    edited = omni.edit("Speech", before, desc=f"replace {OLD!r} with {NEW!r}", model=VOICE).result(WAIT)
    after = edited.audio.save(out / "said-edited.wav")
    hearings = [omni.understand("transcribe", path, model=RECOGNISER) for path in (before, after)]
    heard = [job.result(WAIT) for job in hearings]
    for title, path, hearing in zip(("A sentence", "Edited"), (before, after), heard, strict=True):
        console.print(f"{title}: {path}. Heard in it: [bold]{hearing.text.strip()}[/bold]")
    _print_licences(console, said, heard[0])
    if OLD not in heard[0].text or NEW not in heard[1].text or OLD in heard[1].text:
        raise SystemExit(f"The recogniser does not hear {OLD} before and {NEW} after the edit: listen to {after}")


def show_languages(omni: Client, out: Path, console: Console) -> None:
    """Say sentences in two languages that Audio-Omni lacks. Raises SystemExit where a wrong one is heard."""
    dutch = omni.generate("tts", DUTCH, language="nl", commercial=True).result(WAIT)
    russian = omni.generate("tts", RUSSIAN, language="ru", commercial=True).result(WAIT)
    path = dutch.audio.save(out / "said-nl.wav")
    heard = omni.understand("transcribe", path, model=RECOGNISER).result(WAIT).text.strip()
    console.print(f"In Dutch: {path}. Heard in it, by a recogniser of English alone: [bold]{heard}[/bold]")
    console.print(f"In Russian: {russian.audio.save(out / 'said-ru.wav')}. Nobody here knows Russian: listen to it.")
    model, route = dutch.record.model, dutch.record.route
    reason = route.reason if route else ""
    console.print(f"Said by {model.name} {model.revision} ({model.licence}): {reason}", soft_wrap=True)
    if not all(place in heard for place in PLACES):
        raise SystemExit(f"The recogniser does not hear {' and '.join(PLACES)}: listen to {path}")


def _print_licences(console: Console, said: AudioResult, heard: TextResult) -> None:
    voice, recogniser = said.record.model, heard.record.model
    console.print(
        f"Said by {voice.name} {voice.revision} ({voice.licence}), heard by {recogniser.name} ({recogniser.licence})."
    )


def _recogniser(folder: Path) -> Path:
    """Write the recogniser's folder from its package, unless it is there."""
    if not folder.exists():
        disable_progress_bar()
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_whisper_folder(unfinished).rename(folder)
    return folder
