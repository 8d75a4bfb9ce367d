"""`omnifleet-worker train`: imports what trains when it is called, and not before."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from omnifleet_shared.errors import InvalidSetting
from rich.console import Console
from typer.core import TyperGroup

from ..installation import require_libraries

LIBRARIES = ("peft", "tensorboard", "yaml")


class TrainGroup(TyperGroup):
    """Takes `train CONFIG.yaml` for `train run CONFIG.yaml`."""

    default_command = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command where none of its own is named."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=TrainGroup, no_args_is_help=True, help="Train the DiT of a checkpoint: train CONFIG.yaml.")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file that says what to train, from what, into which folder.")],
    log_format: Annotated[str, typer.Option(help="json or text.")] = "text",
    loglevel: Annotated[str, typer.Option(help="Lowest level that is logged.")] = "INFO",
) -> None:
    """Train until done. Interrupted, it saves; the same command goes on, to the same numbers."""
    _require_libraries()
    from ..observability.logging import configure_logging
    from .config import read_config
    from .run import train

    configure_logging(loglevel, log_format, worker="train")
    stopped_by = train(read_config(config))
    if stopped_by is not None:
        raise typer.Exit(128 + stopped_by)  # as a shell says it of a process that the signal ended


@app.command()
def merge(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint that was trained on.")],
    trained: Annotated[Path, typer.Argument(help="`adapter` or `transformer` in the folder of the run.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the new checkpoint to.")],
) -> None:
    """Bake an adapter, or a transformer that was trained as a whole, into a checkpoint that workers serve."""
    _require_libraries()
    from .merge import merge as merge_into

    merge_into(checkpoint, trained, out)
    Console(stderr=True).print(f"{out} holds the merged checkpoint", highlight=False, soft_wrap=True)


def _require_libraries() -> None:
    require_libraries()
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        remedy = "pip install 'omnifleet[train]'"
        raise InvalidSetting(f"not installed: {', '.join(missing)}", "omnifleet-worker train", remedy)
