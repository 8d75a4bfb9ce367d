"""The allow list of callbacks: schemes, hosts and addresses that workers may post to.

Producers choose the URLs, and workers see networks that producers do not. So a host must be on the list exactly, and
its name is resolved once: the address that was checked is the one that is connected to.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import SplitResult, urlsplit

from ..errors import CallbackRefused, InvalidSetting

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Scheme = Literal["http", "https"]

PORTS: dict[str, int] = {"http": 80, "https": 443}
TUNNELS = tuple(ipaddress.ip_network(one) for one in ("64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"))
"""IPv6 networks that count as global although they embed IPv4 addresses, private ones among them."""


@dataclass(frozen=True)
class CallbackHost:
    """An entry of the allow list."""

    scheme: Scheme
    name: str
    port: int
    network: Network | None = None
    """Network in which its address may be private; None allows public addresses alone."""

    def addresses(self) -> list[str]:
        """Resolve its name to the addresses that may be connected to.

        Raises:
            CallbackRefused: it resolves to no address that is allowed.
            OSError: the name cannot be resolved.
        """
        found = socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM)
        all_of_them = dict.fromkeys(cast(str, entry[4][0]) for entry in found)
        admitted = [one for one in all_of_them if self.admits(one)]
        if admitted:
            return admitted
        problem = f"{self.name} leads to no address that callbacks may go to"
        remedy = f"Allow its network too where that is meant: {self.name}=10.0.0.0/8"
        raise CallbackRefused(problem, "callback", remedy)

    def admits(self, text: str) -> bool:
        """Tell whether callbacks may go to that address: a public one, or one of the entry's own network."""
        address: Address = ipaddress.ip_address(text.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if self.network is not None and address in self.network:
            return True
        return address.is_global and not address.is_multicast and not any(address in one for one in TUNNELS)


class CallbackHosts:
    """The hosts that callbacks may go to.

    Args:
        setting: the value of `FleetSettings.callback_hosts`.

    Raises:
        InvalidSetting: an entry that cannot be parsed.
    """

    def __init__(self, setting: str | None) -> None:
        entries = [_entry(one.strip()) for one in (setting or "").split(",") if one.strip()]
        self._hosts = {(entry.scheme, entry.name, entry.port): entry for entry in entries}

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def find(self, url: str) -> CallbackHost:
        """Find the entry that allows the URL. Raises CallbackRefused where none does; its message omits the path."""
        try:
            parts = urlsplit(url)
            key = _key(parts)
        except ValueError as error:
            raise CallbackRefused("this is no URL", "callback", "Give https://host/path") from error
        if parts.username is not None:
            raise CallbackRefused("the URL holds a user name", "callback", "Callbacks are signed: leave it out")
        if key not in self._hosts:
            problem = f"callbacks to {key[0]}://{key[1]}:{key[2]} are not allowed"
            raise CallbackRefused(problem, "callback", "Add the host to OMNIFLEET_CALLBACK_HOSTS of the workers")
        return self._hosts[key]


def _key(parts: SplitResult) -> tuple[Scheme, str, int]:
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("no scheme, or no host")
    return cast(Scheme, parts.scheme), parts.hostname, PORTS[parts.scheme] if parts.port is None else parts.port


def _entry(text: str) -> CallbackHost:
    host, _, network = text.partition("=")
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
        if parts.path or parts.query or parts.username is not None:
            raise ValueError("more than a host")
        scheme, name, port = _key(parts)
        if not re.fullmatch(r"[a-z0-9._:-]+", name):
            raise ValueError("no name of a host")
        return CallbackHost(scheme, name, port, ipaddress.ip_network(network) if network else _literal(name))
    except ValueError as error:
        remedy = "Use host, host:port, http://host:port, or one of them and =network, separated by commas"
        raise InvalidSetting(f"{text[:200]!r} is no host: {error}", "OMNIFLEET_CALLBACK_HOSTS", remedy) from error


def _literal(name: str) -> Network | None:
    """Allow an address that is listed as such, private or not."""
    try:
        return ipaddress.ip_network(name)
    except ValueError:
        return None
