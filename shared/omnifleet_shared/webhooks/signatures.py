"""Signatures of callbacks: HMAC-SHA256 over the time of posting and the body.

Omnifleet-Delivery: 5f0c…            the same for every time that one outcome is posted
Omnifleet-Timestamp: 1763956800      Unix time of this posting
Omnifleet-Signature: v1=9a3b…        hex of HMAC-SHA256(secret, timestamp + "." + body)
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from typing import Protocol

from ..errors import SignatureInvalid
from ..schema.callback import CallbackOutcome, read_outcome

DELIVERY = "Omnifleet-Delivery"
TIMESTAMP = "Omnifleet-Timestamp"
SIGNATURE = "Omnifleet-Signature"
MAX_AGE = 300
"""Seconds for which a signature is valid, so that a recorded callback cannot be replayed later."""


def sign_callback(body: bytes, delivery_id: str, secret: str, now: float | None = None) -> dict[str, str]:
    """Make the headers that sign a callback posted at Unix time `now`, by default this moment."""
    timestamp = str(int(time.time() if now is None else now))
    return {DELIVERY: delivery_id, TIMESTAMP: timestamp, SIGNATURE: _signature(body, timestamp, secret)}


class Headers(Protocol):
    """Headers of a request, as frameworks and `http.server` have them."""

    def items(self) -> Iterable[tuple[str, str]]:
        """All names with their values."""
        ...


def verify_callback(
    body: bytes, headers: Headers, secret: str, *, max_age: float = MAX_AGE, now: float | None = None
) -> CallbackOutcome:
    """Verify that a callback comes from the fleet, and parse its outcome.

    A callback may come more than once: its `delivery_id` is the same each time.

    Args:
        body: of the request, exactly as it came.
        headers: of the request, in any case.
        secret: OMNIFLEET_CALLBACK_SECRET of the workers.
        max_age: seconds between posting and now, either way, since clocks differ; 300 by default.
        now: Unix time; this moment by default.

    Raises:
        SignatureInvalid: not signed with the secret, or not within `max_age`. Answer 401, and use nothing of it.
        InvalidMessage: signed, but no outcome that this release reads.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    timestamp, signature = lowered.get(TIMESTAMP.lower(), ""), lowered.get(SIGNATURE.lower(), "")
    expected = _signature(body, timestamp, secret)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass")):
        problem, remedy = "the callback is not signed with this secret", "Compare it with that of the workers"
        raise SignatureInvalid(problem, SIGNATURE, remedy)
    # It is signed, and so it is a number.
    if abs((time.time() if now is None else now) - int(timestamp)) > max_age:
        problem = f"the callback was signed more than {max_age:g} s away from now"
        raise SignatureInvalid(problem, TIMESTAMP, "Compare the clocks; if they agree, it is a replay")
    return read_outcome(json.loads(body))


def _signature(body: bytes, timestamp: str, secret: str) -> str:
    # surrogatepass encodes any text; what is no number was not signed by the fleet.
    signed = timestamp.encode("utf-8", "surrogatepass") + b"." + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
