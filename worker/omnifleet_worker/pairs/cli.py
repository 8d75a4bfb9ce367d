"""`omnifleet-worker make-pairs`: imports what mixes when it is called, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from omnifleet_shared.errors import InvalidTrainingConfig
from rich.console import Console

from ..installation import require_libraries


def make_pairs(
    recipe: Annotated[
        Path | None, typer.Argument(help="YAML file: corpora, how many pairs, how they are mixed.")
    ] = None,
    rebuild: Annotated[
        Path | None, typer.Option(help="List whose files are gone: make them again, from its lines alone.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode and mix.")] = 1,
) -> None:
    """Mix recordings with tags into pairs to train on. Run again after an interruption, it goes on."""
    require_libraries()
    from .maker import make_pairs as make
    from .maker import rebuild_pairs
    from .recipe import read_recipe

    console = Console(stderr=True)
    if (recipe is None) == (rebuild is None):
        raise InvalidTrainingConfig("a recipe or a list to rebuild is wanted", "recipe", "Give one of them")
    if recipe is not None:
        for path in make(read_recipe(recipe), workers):
            console.print(f"{path} lists the pairs", highlight=False, soft_wrap=True)
    if rebuild is not None:
        console.print(f"{rebuild_pairs(rebuild, workers)} pairs were made again", highlight=False, soft_wrap=True)
