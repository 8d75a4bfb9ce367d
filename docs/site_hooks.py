"""What mkdocs does beside its plugins: the table of settings, and a look that no page loads anything from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from omnifleet.gateway.settings import GatewaySettings
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.settings import WorkerSettings
from pydantic.fields import FieldInfo

TABLE = "<!-- settings table -->"
HEAD = ["| variable | read by | default | meaning |", "|---|---|---|---|"]
ELSEWHERE = r"[\"']?(?:https?:)?//"
FETCHED = re.compile(
    rf"<(?:script|img|iframe|source)\b[^>]*\bsrc={ELSEWHERE}|<link\b(?=[^>]*stylesheet)[^>]*\bhref={ELSEWHERE}"
)


def settings_table() -> str:
    """The settings as a table of Markdown, one line each."""
    fields = GatewaySettings.model_fields | WorkerSettings.model_fields
    return "\n".join([*HEAD, *(_row(name, field) for name, field in fields.items())])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table where a page has its mark."""
    return markdown.replace(TABLE, settings_table())


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that would fetch a script, a style or a picture from another host. Raises PluginError."""
    found = FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} fetches something from elsewhere: {found[0]}")
    return output


def _row(name: str, field: FieldInfo) -> str:
    readers = {"worker": WorkerSettings, "gateway": GatewaySettings}
    named = [reader for reader, settings in readers.items() if name in settings.model_fields]
    reader = "all" if name in FleetSettings.model_fields else ", ".join(named)
    default = "none" if field.default is None else str(field.default).replace(str(Path.home()), "~")
    meaning = (field.description or "").replace("\n", " ").replace("|", "\\|")
    return f"| `OMNIFLEET_{name.upper()}` | {reader} | `{default}` | {meaning} |"
