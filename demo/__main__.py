"""Run one job of every namespace through a real fleet and show what came back."""

from __future__ import annotations

import time
from pathlib import Path

from omnifleet import Client, FleetSettings, JobHandle, OmnifleetError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .media import write_street, write_voice
from .services import fleet

OUT = Path("demo-output")
HOME = Path(".cache/demo").resolve()
STEPS = 25
console = Console()


def main() -> None:
    """The demo, from an empty folder to files that one can play."""
    start = time.monotonic()
    OUT.mkdir(exist_ok=True)
    HOME.mkdir(parents=True, exist_ok=True)
    console.print("Starting Redis (from a wheel), folder storage and one worker on a tiny checkpoint…")
    with fleet(HOME) as environment:
        settings = FleetSettings(redis_url=environment["OMNIFLEET_REDIS_URL"], storage=environment["OMNIFLEET_STORAGE"])
        with Client(settings) as omni:
            jobs = submit(omni)
            watch(jobs)
            show(jobs)
    console.print(
        "[yellow]The checkpoint has random weights: its sound is noise and its words are random letters. "
        "What is real is the way they went.[/yellow]\n"
        f"Everything is stopped again. {time.monotonic() - start:.0f} s, files in {OUT}/, worker's log in {HOME}/."
    )


def submit(omni: Client) -> dict[str, JobHandle]:
    """One understand, two generate and one edit job, all enqueued before the first is done."""
    street, voice = write_street(OUT / "street.wav"), write_voice(OUT / "voice.wav")
    return {
        "understand transcribe voice.wav": omni.understand("transcribe", voice, max_new_tokens=STEPS),
        "generate t2a 'rain on a tin roof'": omni.generate("t2a", "rain on a tin roof", seconds=5, steps=STEPS),
        "generate tts with voice.wav": omni.generate(
            "tts", "Hello world", ref=voice, ref_text="A e i o u", steps=STEPS
        ),
        "edit Add street.wav 'rain sounds'": omni.edit("Add", street, desc="rain sounds", steps=STEPS, format="flac"),
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


if __name__ == "__main__":
    main()
