"""A sentence that one can hear, and a word of it changed: a small English voice says both, a recogniser hears them."""

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
from support.speech.spoken_engine import NAME as VOICE
from support.speech.whisper_folder import write_whisper_folder
from transformers.utils.logging import disable_progress_bar

RECOGNISER = "whisper-tiny-en"
MODELS = f"audio-omni,{VOICE},{RECOGNISER}"
"""`OMNIFLEET_MODELS` of the demo's fleet."""
SENTENCE = "We will meet on Monday in front of the station."
OLD, NEW = "Monday", "Friday"
WAIT = 120.0
"""Longest wait for one of its jobs, in seconds: an idle worker takes one or two."""
_TESTS = Path(__file__).parents[1] / "tests"


@contextmanager
def speech_workers(home: Path, fleet: Mapping[str, str]) -> Iterator[list[Process]]:
    """Run the two workers beside Audio-Omni's, and end them with the block; they may not be ready yet.

    Args:
        home: folder of their models and logs.
        fleet: environment that leads to the fleet.
    """
    recogniser = _recogniser(home / RECOGNISER)
    (home / VOICE).mkdir(exist_ok=True)  # a worker needs a folder; the voice is in its package
    voice = {
        "OMNIFLEET_ENGINE": "support.speech.spoken_engine",
        "OMNIFLEET_RECOGNISER": str(recogniser),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH")))),
    }
    with ExitStack() as stack:
        workers = []
        for name, own in ((VOICE, voice), (RECOGNISER, {})):
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
