"""`omnifleet-worker`: run a worker, convert and verify checkpoints, train one, write a small one to try it with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting, OmnifleetError
from omnifleet_shared.settings import load_settings
from rich.console import Console
from rich.text import Text

from .engines.table import choose_engine
from .installation import checkpoint_folder, collector_paused, require_libraries
from .pairs.cli import make_pairs
from .settings import WorkerSettings
from .training.cli import app as train_app

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(train_app, name="train")
app.command("make-pairs")(make_pairs)


@app.command()
def run(
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder [env: OMNIFLEET_CHECKPOINT].")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Requests that share an engine step.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs held at once.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    loglevel: Annotated[str, typer.Option(help="Lowest level that is logged.")] = "INFO",
    name: Annotated[
        str | None,
        typer.Option(help="Worker's name, such as gpu-0@%h, where %h is the host; omnifleet@%h:PID by default."),
    ] = None,
) -> None:
    """Take jobs until stopped. Everything else is set by OMNIFLEET_* in the environment."""
    overrides = {"checkpoint": checkpoint, "max_batch": max_batch, "concurrency": concurrency, "log_format": log_format}
    settings = load_settings(WorkerSettings, **{key: value for key, value in overrides.items() if value is not None})
    require_libraries()
    choose_engine(settings)
    with collector_paused():
        from .celery import create_worker_app  # imports torch: neither for --help nor to refuse the above

    named = ["--hostname", name] if name else []
    options = [*named, "--loglevel", loglevel, "--without-gossip", "--without-mingle"]
    raise typer.Exit(create_worker_app(settings).run_worker(*options))


@app.command("tiny-checkpoint")
def tiny_checkpoint(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write a small checkpoint with random weights (about 90 MB): it makes noise, and everything runs on a CPU."""
    require_libraries()
    from .models.audio_omni.tiny import write_tiny_checkpoint

    write_tiny_checkpoint(out, seed=seed)
    Console(stderr=True).print(f"Wrote a tiny checkpoint with random weights to {out}")


@app.command()
def convert(
    out: Annotated[Path, typer.Argument(help="Folder to write the checkpoint to.")],
    weights: Annotated[
        Path, typer.Option(help="Folder of Audio-Omni.json, model.ckpt and synchformer_state_dict.pth.")
    ],
    code: Annotated[Path, typer.Option(help="Clone of the published code; it is read, never run.")],
    qwen: Annotated[
        Path | None, typer.Option(help="Folder of Qwen2.5-Omni-3B's processor. Default: the Hugging Face cache.")
    ] = None,
    dtype: Annotated[
        Literal["published", "bf16"], typer.Option(help="Of the transformer and the thinker as stored.")
    ] = "published",
) -> None:
    """Convert the published checkpoint for workers. Run again after an interruption, it goes on where it stopped."""
    require_libraries()
    import torch

    from .checkpoint.convert import Conversion
    from .checkpoint.progress import byte_progress
    from .checkpoint.published.files import PublishedFiles

    files = PublishedFiles.find(weights, code, qwen)
    console = Console(stderr=True)
    with byte_progress(console) as progress:
        stored = torch.bfloat16 if dtype == "bf16" else None
        manifest = Conversion(files=files, out=out, dtype=stored, progress=progress).run()
    total = sum(record.bytes for record in manifest.values())
    console.print(f"{out} holds the checkpoint: {len(manifest)} files, {total / 1e9:.1f} GB", highlight=False)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a converted checkpoint.")],
    parity: Annotated[
        Path | None, typer.Option(help="Folder of numbers that the published implementation gave: compare them too.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(min=0, help="Largest relative error that passes; by default what float32 allows.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute them, as float32.")] = "cpu",
) -> None:
    """Compare every file of a checkpoint with its manifest; exit code 1 where one is not as it was written.

    With --parity, compare what its parts compute with the numbers that the published implementation computed from the
    same weights; exit code 1 where one does not agree.
    """
    from .checkpoint.manifest import all_faults
    from .checkpoint.progress import byte_progress

    console = Console(stderr=True)
    with byte_progress(console) as progress:
        faults = all_faults(folder, progress)
    for path, fault in faults.items():
        console.print(path, fault, style="red", markup=False, highlight=False)
    if faults:
        raise typer.Exit(1)
    console.print(f"{folder} is as it was written", highlight=False)
    if parity is not None:
        _compare_numbers(console, folder, parity, within, device)


def _compare_numbers(console: Console, folder: Path, numbers: Path, within: float | None, device: str) -> None:
    require_libraries()
    from .checkpoint.parity import compare_numbers

    disagree, count = 0, 0
    for one in compare_numbers(folder, numbers, device=device, within=within):
        count, disagree = count + 1, disagree + (not one.agrees)
        verdict = "agrees" if one.agrees else "DOES NOT AGREE"
        words = f"{one.name}: {verdict}, off by {one.error:.1e} where {one.within:.0e} is allowed"
        console.print(words, style="" if one.agrees else "red", markup=False, highlight=False, soft_wrap=True)
    if disagree:
        console.print(f"{disagree} of {count} numbers are not the published ones", style="red", soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"{folder} gives all {count} published numbers", highlight=False, soft_wrap=True)


@app.command("write-manifest")
def make_manifest(
    folder: Annotated[Path, typer.Argument(help="Folder of a model, as it was downloaded.")],
) -> None:
    """Write the manifest of a model that was not converted: `fetch-checkpoint` brings what it lists, and nothing else.

    Files and folders whose names begin with a dot are left out.
    """
    from .checkpoint.manifest import record_folder, write_manifest
    from .checkpoint.progress import byte_progress

    console = Console(stderr=True)
    with byte_progress(console) as progress:
        manifest = record_folder(folder, progress)
    write_manifest(folder, manifest)
    total = sum(record.bytes for record in manifest.values())
    console.print(f"The manifest of {folder} has {len(manifest)} files, {total / 1e9:.1f} GB", highlight=False)


@app.command("compile")
def compile_checkpoint(
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder [env: OMNIFLEET_CHECKPOINT].")] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Where the same checkpoint is stored: put the code beside it, for fetch-checkpoint."),
    ] = None,
) -> None:
    """Compile a checkpoint of Audio-Omni for this machine's device, as a worker does at first, and keep the code.

    With --store, machines with such a device and the same versions fetch it with the checkpoint, and compile nothing.
    """
    named = {} if checkpoint is None else {"checkpoint": checkpoint}
    settings = load_settings(WorkerSettings, compile="on", **named)
    require_libraries()
    folder, engine = checkpoint_folder(settings), choose_engine(settings)
    if engine != "audio-omni":
        remedy = "Name a converted checkpoint of Audio-Omni; the others need no compilation"
        raise InvalidSetting(f"the engine {engine} compiles nothing", "OMNIFLEET_CHECKPOINT", remedy)
    from omnifleet_shared.storage import open_storage

    from .checkpoint.code_files import require_same_checkpoint, store_code

    storage = None if store is None else open_storage(load_settings(WorkerSettings, storage=store))
    if storage is not None:
        require_same_checkpoint(storage, folder)
    path = _compile(settings)
    uri = None if storage is None else store_code(storage, path)
    console = Console(stderr=True)
    console.print(f"{path} holds the code", highlight=False, soft_wrap=True)
    if uri is not None:
        console.print(f"{uri} has it too", highlight=False, soft_wrap=True)


def _compile(settings: WorkerSettings) -> Path:
    """The file of the code, once the checkpoint is compiled. Raises CheckpointInvalid where it cannot be written."""
    from . import model_loader

    model_loader.open_model(settings)
    path = model_loader.compiled_code(settings).path
    if not path.is_file():
        remedy = "Compile in a copy of the folder that this user may write to"
        raise CheckpointInvalid(f"{path} cannot be written", "OMNIFLEET_CHECKPOINT", remedy)
    return path


@app.command("fetch-checkpoint")
def fetch_checkpoint(
    source: Annotated[str, typer.Argument(help="Folder with a manifest: s3://bucket/prefix, or file:///folder.")],
    folder: Annotated[Path, typer.Argument(help="Folder to be, on this machine's own disk.")],
    verify: Annotated[bool, typer.Option(help="Hash a checkpoint that is there already, which takes minutes.")] = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled",
            help="Fetch the code that `compile --store` put beside it, too: workers run it, so whoever may write there "
            "must be trusted with them.",
        ),
    ] = False,
) -> None:
    """Bring a checkpoint to this machine, once for all its workers. Run again after an interruption, it goes on."""
    from omnifleet_shared.storage import open_storage

    from .checkpoint.cache import CheckpointCache
    from .checkpoint.progress import byte_progress

    settings = load_settings(WorkerSettings, storage=source)
    console = Console(stderr=True)
    with byte_progress(console) as progress:
        timeout = settings.storage_patience
        cache = CheckpointCache(
            source=open_storage(settings), folder=folder, progress=progress, timeout=timeout, compiled=compiled
        )
        manifest = cache.fill(verify=verify)
    console.print(f"{folder} holds the checkpoint: {len(manifest)} files", highlight=False)


def main() -> None:
    """Entry point; typed errors become one line and exit code 2."""
    try:
        app()
    except OmnifleetError as error:
        # No markup: `omnifleet[worker]` would lose its end.
        words = Text.assemble((type(error).__name__, "red"), f" {error}")
        Console(stderr=True).print(words, highlight=False, soft_wrap=True)
        sys.exit(2)
