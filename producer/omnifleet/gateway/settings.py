"""Settings of a gateway process, from `OMNIFLEET_*` in the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from omnifleet_shared.settings import MEBIBYTE, FleetSettings
from pydantic import Field


class GatewaySettings(FleetSettings):
    """What one gateway process takes from its callers, and how long it waits for them."""

    gateway_max_json: Annotated[int, Field(ge=1)] = 32 * MEBIBYTE
    """Bytes of the largest JSON body, media in base64 among it, which is held in memory. Files are taken up to
    `OMNIFLEET_MAX_INPUT_BYTES`, and held on disk."""
    gateway_max_requests: Annotated[int, Field(ge=1)] = 4096
    """Requests that a gateway process serves at once, open event streams among them; one more is refused."""
    gateway_body_patience: Annotated[float, Field(gt=0)] = 20.0
    """Seconds that the headers of a request may take, and its body, besides a second for each 16 kB of it."""
    gateway_patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that a job of OpenAI's endpoints may take, whose callers wait for it: its deadline."""
    gateway_grace: Annotated[float, Field(ge=0)] = 30.0
    """Seconds after SIGTERM in which a gateway answers the requests that it has. Below the pod's own period."""
    gateway_page: bool = True
    """Whether the gateway serves its page for people at `/`, and that of its HTTP interface at `/docs`."""
    http_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port on which the gateway shows `/metrics` and `/livez`, apart from its callers; nothing listens by default."""
    http_host: str = "0.0.0.0"
    """Address on which it does."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or plain lines for people."""
