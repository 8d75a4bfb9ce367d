"""What Redis says when it fails a call, as omnifleet's errors: the one table for clients, workers and commands.

A reply begins with its kind (redis.io, "Redis protocol specification", simple errors); within a script Redis puts it
behind other words. Either time mends it, which is an outage (BrokerUnavailable), or somebody must (BrokerRefused).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from redis import exceptions as replies

from .errors import BrokerRefused, BrokerUnavailable

URL_SETTING = "OMNIFLEET_REDIS_URL"
RIGHTS = "Give it the rights that omnifleet's documentation lists (Operations, Rights in Redis)"
FAILOVER = "A failover ends this by itself; else name the master, or its sentinels in OMNIFLEET_REDIS_SENTINELS"
LOGIN = f"Put the right user and password into {URL_SETTING}"
NO_CLUSTER = "Give it a Redis without cluster mode: its scripts need several keys at once"


@dataclass(frozen=True)
class Kind:
    """What a kind of reply means."""

    error: type[BrokerUnavailable | BrokerRefused]
    problem: str
    remedy: str


def _outage(problem: str, remedy: str) -> Kind:
    return Kind(BrokerUnavailable, problem, remedy)


def _refusal(problem: str, remedy: str) -> Kind:
    return Kind(BrokerRefused, problem, remedy)


KINDS: dict[str, Kind] = {
    "LOADING": _outage("Redis has started and still loads its data", "Wait until it has; its log says how far it is"),
    "READONLY": _outage("this Redis is a replica, and takes no writes", FAILOVER),
    "UNBLOCKED": _outage("this Redis has just become a replica", FAILOVER),
    "MASTERDOWN": _outage("this Redis is a replica, and its master is away", FAILOVER),
    "NOREPLICAS": _outage("Redis has fewer replicas than it is to have, and takes no writes", "Bring them back"),
    "OOM": _outage("Redis is full", "Raise its maxmemory, or lower OMNIFLEET_RESULT_LIFETIME"),
    "MISCONF": _outage("Redis cannot save to its disk, and takes no writes", "Make room there; its log says more"),
    "BUSY": _outage("Redis is busy with somebody's script", "Wait, or end it with SCRIPT KILL"),
    "MAXCLIENTS": _outage("Redis takes no more connections", "Raise its maxclients, or see who holds so many"),
    "CLUSTERDOWN": _outage("the cluster of this Redis is down", NO_CLUSTER),
    "TRYAGAIN": _outage("the cluster of this Redis moves its keys", NO_CLUSTER),
    "CROSSSLOT": _refusal("this Redis is a cluster", NO_CLUSTER),
    "MOVED": _refusal("this Redis is a cluster", NO_CLUSTER),
    "ASK": _refusal("this Redis is a cluster", NO_CLUSTER),
    "NOAUTH": _refusal("Redis wants a password", LOGIN),
    "WRONGPASS": _refusal("Redis refuses the password", LOGIN),
    "NOPERM": _refusal("Redis refuses its user a right", RIGHTS),
}
"""By the first word of the reply."""

# redis-py takes the first word off the replies that it has a class for. Subclasses come first.
CLASSES: dict[type[Exception], str] = {
    replies.BusyLoadingError: "LOADING",
    replies.ReadOnlyError: "READONLY",
    replies.MasterDownError: "MASTERDOWN",
    replies.ClusterDownError: "CLUSTERDOWN",
    replies.TryAgainError: "TRYAGAIN",
    replies.ClusterCrossSlotError: "CROSSSLOT",
    replies.MovedError: "MOVED",
    replies.AskError: "ASK",
    replies.OutOfMemoryError: "OOM",
    replies.NoPermissionError: "NOPERM",
}
# Replies that have no kind of their own, and such from within a script.
PHRASES: dict[str, str] = {
    "max number of clients reached": "MAXCLIENTS",
    "Authentication required": "NOAUTH",
    "The user executing the script can't": "NOPERM",
    "ACL failure in script": "NOPERM",
    "non local key in a cluster": "CROSSSLOT",
}
FROM_SCRIPT = re.compile(r"(?:^|[ -])([A-Z]{3,}) ")
LOST_MASTER = frozenset({"LOADING", "READONLY", "UNBLOCKED", "MASTERDOWN"})
"""Kinds after which a new connection may find another server at the same address."""


def kind_of(error: BaseException) -> str | None:
    """Name the kind of a reply; None where Redis did not reply, and for a kind that is not known."""
    if isinstance(error.__cause__, replies.ResponseError):
        return kind_of(error.__cause__)  # what lost its master, to a client that tries a new connection
    for cls, name in CLASSES.items():
        if isinstance(error, cls):
            return name
    text = str(error)
    for phrase, name in PHRASES.items():
        if phrase in text:
            return name
    if isinstance(error, replies.AuthenticationError):
        return "WRONGPASS"
    if not isinstance(error, replies.ResponseError):
        return None
    return next((word for word in FROM_SCRIPT.findall(text) if word in KINDS), None)


def typed_redis_error(error: Exception, meanwhile: str = "") -> BrokerUnavailable | BrokerRefused:
    """Make omnifleet's error of what redis-py raised.

    Args:
        error: a RedisError or OSError.
        meanwhile: what could not be done, to be said first.
    """
    before = f"{meanwhile}: " if meanwhile else ""
    name = kind_of(error)
    if name is not None:
        kind = KINDS[name]
        field = URL_SETTING if kind.error is BrokerRefused else "redis_url"
        return kind.error(f"{before}{kind.problem} ({error})", field, kind.remedy, {"reply": name})
    if "CERTIFICATE_VERIFY_FAILED" in str(error):  # redis-py and kombu wrap what ssl raises
        problem = f"{before}the certificate of this Redis cannot be trusted: {error}"
        remedy = "Name the file of the CA that vouches for it: rediss://host:6379/0?ssl_ca_certs=/etc/ssl/redis-ca.pem"
        return BrokerRefused(problem, URL_SETTING, remedy)
    if isinstance(error, replies.ResponseError) and not isinstance(error, replies.ConnectionError):
        remedy = "It must be Redis 6.2 or later, of omnifleet alone or with other keys than its own: omnifleet doctor"
        return BrokerRefused(f"{before}Redis refuses a command: {error}", URL_SETTING, remedy, {"reply": "ERR"})
    remedy = f"Check {URL_SETTING} and that Redis runs"
    return BrokerUnavailable(f"{before}Redis does not answer: {error}", "redis_url", remedy)
