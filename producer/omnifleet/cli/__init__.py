"""The command line, `omnifleet`: `app` is the typer application, `main` the console script."""

from .app import app, main

__all__ = ["app", "main"]
