"""Serves the pages at `/` and `/docs`, and what they are made of below `/page`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "static"
PAGES = {"/": "index.html", "/docs": "docs.html"}
BELOW = "/page"
PATHS = {*PAGES, *(f"{BELOW}/{path.name}" for path in FOLDER.iterdir())}
"""Paths of everything that is served here."""
# What a page shows comes from callers: nothing of it may become a script, whatever a file is called.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept by browsers, and asked for anew each time: after an upgrade no old script meets a new page.
    "Cache-Control": "no-cache",
}


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def add_pages(app: FastAPI) -> None:
    """Give an application its pages."""
    for path, name in PAGES.items():
        app.add_api_route(path, _page(FOLDER / name), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(BELOW, _Files(directory=FOLDER))


def _page(file: Path) -> Callable[[], Response]:
    def serve() -> Response:
        return FileResponse(file, headers=HEADERS)

    return serve
