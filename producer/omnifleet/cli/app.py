"""Understand, generate and edit audio with a fleet; OMNIFLEET_REDIS_URL and OMNIFLEET_STORAGE say where it is.

Exit codes: 0 done; 1 the job failed; 2 the request, its media or a setting will not do; 3 Redis or the storage does
not answer or refuses, or too much waits already; 4 not done within --timeout; 5 the job was cancelled; 130 interrupted,
the job goes on.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from omnifleet_shared.observability.tracing import export_traces
from omnifleet_shared.schema.jobs import AudioFormat, Priority, Quality
from omnifleet_shared.schema.tasks import Timestamps

from ..request.build import DiffusionOptions, JobOptions
from ..results.audio_files import format_of, is_video
from .adapters import adapters
from .batch import batch
from .dead import dead
from .keys import keys
from .ops import add_commands
from .options import (
    Adapter,
    AdapterScale,
    AsJson,
    AudioTrack,
    Callback,
    Channels,
    Commercial,
    Deadline,
    Force,
    Guidance,
    IdempotencyKey,
    JobIdArgument,
    Language,
    LoudnessOption,
    Model,
    NoWait,
    Output,
    PriorityOption,
    QualityOption,
    Seed,
    Steps,
    Timeout,
)
from .outputs.output_file import TEXT_SUFFIX, OutputFile, about_media
from .outputs.standard_output import NAME, StandardOutput
from .session import open_session
from .spectrogram import spectrogram
from .storage import storage
from .voices import voices

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(adapters, name="adapters")
app.add_typer(batch, name="batch")
app.add_typer(dead, name="dead")
app.add_typer(keys, name="keys")
app.add_typer(storage, name="storage")
app.add_typer(voices, name="voices")
app.command()(spectrogram)
add_commands(app)


@app.callback(help=__doc__, invoke_without_command=True)
def omnifleet(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options that stand before a command."""
    if show_version:
        typer.echo(version("omnifleet"))
        raise typer.Exit


@app.command()
def understand(
    context: typer.Context,
    task: Annotated[
        str | None, typer.Argument(help="A task (transcribe, caption, qa, ...), or a question in quotes.")
    ] = None,
    audio: Annotated[list[str] | None, typer.Argument(help="Recordings.")] = None,
    question: Annotated[
        str | None, typer.Option(help="A question of one word too; all other arguments are recordings then.")
    ] = None,
    video: Annotated[list[str] | None, typer.Option(help="A video; may be repeated.")] = None,
    text: Annotated[str | None, typer.Option(help="What the task takes, such as the question of qa.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer; 512 by default.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 (default) to 2; 0 takes the likeliest words.")] = None,
    timestamps: Annotated[
        Timestamps | None, typer.Option(help="transcribe: times of words or segments; -o call.srt, .vtt, .json.")
    ] = None,
    seed: Seed = None,
    priority: PriorityOption = None,
    deadline: Deadline = None,
    language: Language = None,
    audio_track: AudioTrack = None,
    commercial: Commercial = False,
    model: Model = None,
    idempotency_key: IdempotencyKey = None,
    callback: Callback = None,
    output: Output = None,
    force: Force = False,
    timeout: Timeout = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Ask about audio or video: omnifleet understand transcribe call.mp3"""
    with open_session(context.obj, as_json) as session:
        recordings = [*([task] if question and task else []), *(audio or [])]
        about = about_media([*recordings, *(video or [])])
        file = _file(
            output, force, "answer" if question or " " in (task or "") else task or "", about, TEXT_SUFFIX, as_json
        )
        session.check_output(file, no_wait=no_wait, timed=timestamps is not None)
        job = session.client.understand(
            None if question else task,
            recordings or None,
            question=question,
            video=video or None,
            text=text,
            system=system,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            timestamps=timestamps,
            stream=isinstance(file, StandardOutput) and timestamps is None,
            **_common(seed, priority, deadline, language, audio_track, commercial, model, idempotency_key, callback),
        )
        session.finish(job, file, timeout, no_wait=no_wait)


@app.command()
def generate(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="t2a, t2m, v2a, v2m, tts or vc.")],
    text: Annotated[str | None, typer.Argument(help="The description, or what is said.")] = None,
    ref: Annotated[str | None, typer.Option(help="tts, vc: a recording of the voice, or voice:NAME.")] = None,
    ref_text: Annotated[str | None, typer.Option(help="What is said in --ref.")] = None,
    audio: Annotated[str | None, typer.Option(help="vc: the speech to convert.")] = None,
    video: Annotated[str | None, typer.Option(help="v2a, v2m: the video to make sound for.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Length; 10, the video's, or as long as it takes to say, by default.")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="tts: 0.25 to 4, how fast it is said; 1 by default.")] = None,
    mux: Annotated[
        bool, typer.Option("--mux", help="v2a, v2m: make the video with the new sound too; -o film.mp4 writes it.")
    ] = False,
    steps: Steps = None,
    quality: QualityOption = None,
    guidance: Guidance = None,
    adapter: Adapter = None,
    adapter_scale: AdapterScale = None,
    seed: Seed = None,
    audio_format: Annotated[
        AudioFormat | None, typer.Option("--format", help="By default that of -o, else wav.")
    ] = None,
    priority: PriorityOption = None,
    deadline: Deadline = None,
    language: Language = None,
    audio_track: AudioTrack = None,
    commercial: Commercial = False,
    model: Model = None,
    idempotency_key: IdempotencyKey = None,
    callback: Callback = None,
    output: Output = None,
    force: Force = False,
    timeout: Timeout = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make audio: omnifleet generate tts "Hello" --ref voice.wav -o hello.wav"""
    common = _common(seed, priority, deadline, language, audio_track, commercial, model, idempotency_key, callback)
    with open_session(context.obj, as_json) as session:
        about = text or about_media([source for source in (audio, video) if source])
        sound = None if mux and output and is_video(output) else output
        file = _file(output, force, task, about, audio_format or "wav", as_json)
        session.check_output(file, no_wait=no_wait)
        job = session.client.generate(
            task,
            text,
            ref=ref,
            ref_text=ref_text,
            audio=audio,
            video=video,
            seconds=seconds,
            speed=speed,
            mux=mux or None,
            stream=isinstance(file, StandardOutput) and audio_format in (None, "wav"),
            **_sampling(steps, quality, guidance, adapter, adapter_scale, _format(audio_format, sound), common),
        )
        session.finish(job, file, timeout, no_wait=no_wait)


@app.command()
def edit(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="add, remove, extract, style or speech.")],
    audio: Annotated[str, typer.Argument(help="The recording to change.")],
    desc: Annotated[str | None, typer.Option(help="The sound to add, remove or extract, or the instruction.")] = None,
    source: Annotated[str | None, typer.Option(help="style: the sound that is there.")] = None,
    target: Annotated[str | None, typer.Option(help="style: the sound to make of it.")] = None,
    span: Annotated[
        str | None, typer.Option(metavar="START-END", help="speech: seconds whose words are to go, such as 1.5-2.75.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="speech: what is said in --span instead; else nothing.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="speech: show words, times and what would change, and make nothing.")
    ] = False,
    loudness: LoudnessOption = None,
    channels: Channels = None,
    steps: Steps = None,
    quality: QualityOption = None,
    guidance: Guidance = None,
    adapter: Adapter = None,
    adapter_scale: AdapterScale = None,
    seed: Seed = None,
    audio_format: Annotated[
        AudioFormat | None, typer.Option("--format", help="By default that of -o, else wav.")
    ] = None,
    priority: PriorityOption = None,
    deadline: Deadline = None,
    language: Language = None,
    audio_track: AudioTrack = None,
    commercial: Commercial = False,
    model: Model = None,
    idempotency_key: IdempotencyKey = None,
    callback: Callback = None,
    output: Output = None,
    force: Force = False,
    timeout: Timeout = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Change audio: omnifleet edit Add street.wav --desc "rain sounds" -o out.flac"""
    common = _common(seed, priority, deadline, language, audio_track, commercial, model, idempotency_key, callback)
    with open_session(context.obj, as_json) as session:
        file = _file(output, force, task, about_media([audio]), audio_format or "wav", as_json)
        session.check_output(file, no_wait=no_wait, dry_run=dry_run)
        job = session.client.edit(
            task,
            audio,
            desc=desc,
            source=source,
            target=target,
            span=span,
            text=text,
            dry_run=dry_run,
            loudness=loudness,
            channels=channels,
            **_sampling(steps, quality, guidance, adapter, adapter_scale, _format(audio_format, output), common),
        )
        session.finish(job, file, timeout, no_wait=no_wait)


@app.command()
def status(context: typer.Context, job_id: JobIdArgument, as_json: AsJson = False) -> None:
    """Say where a job is."""
    with open_session(context.obj, as_json) as session:
        session.print_status(session.client.job(job_id))


@app.command()
def result(
    context: typer.Context,
    job_id: JobIdArgument,
    output: Output = None,
    force: Force = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a job that was sent before, and print its result."""
    with open_session(context.obj, as_json) as session:
        file = _file(output, force, "result", job_id, TEXT_SUFFIX, as_json)
        session.check_output(file)
        session.finish(session.client.job(job_id), file, timeout)


@app.command()
def cancel(context: typer.Context, job_id: JobIdArgument, as_json: AsJson = False) -> None:
    """Ask for a job to be stopped."""
    with open_session(context.obj, as_json) as session:
        session.cancel(session.client.job(job_id))


def _common(
    seed: int | None,
    priority: Priority | None,
    deadline: float | None,
    language: str | None,
    audio_track: int | None,
    commercial: bool,
    model: str | None,
    idempotency_key: str | None,
    callback: str | None,
) -> JobOptions:
    options: JobOptions = {"seed": seed, "priority": priority, "deadline": deadline, "language": language}
    options |= {"audio_track": audio_track, "commercial": commercial, "model": model}
    return {**options, "idempotency_key": idempotency_key, "callback": callback}


def _sampling(
    steps: int | None,
    quality: Quality | None,
    guidance: float | None,
    adapter: str | None,
    scale: float | None,
    audio_format: AudioFormat | None,
    common: JobOptions,
) -> DiffusionOptions:
    steps_of: DiffusionOptions = {"steps": steps, "quality": quality, "guidance": guidance, "format": audio_format}
    return {**common, **steps_of, "adapter": adapter, "adapter_scale": scale}


def _file(
    output: Path | None, force: bool, task: str, about: str, suffix: str, as_json: bool
) -> OutputFile | StandardOutput | None:
    if output is None:
        return None
    if output == NAME:
        return StandardOutput(holds_text=suffix == TEXT_SUFFIX, as_json=as_json)
    return OutputFile(path=output, task=task, about=about, suffix=suffix, force=force)


def _format(requested: AudioFormat | None, output: Path | None) -> AudioFormat | None:
    # The suffix is looked at in any case: a wrong one is better known before the job than after it.
    of_output = format_of(output) if output and not output.is_dir() else None
    return requested or of_output


def main() -> None:
    """Entry point of `omnifleet`."""
    export_traces("omnifleet")
    app()
