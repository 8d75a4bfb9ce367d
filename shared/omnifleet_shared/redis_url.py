"""One reading of `OMNIFLEET_REDIS_URL` and `OMNIFLEET_REDIS_SENTINELS`, for redis-py's connections and kombu's alike.

kombu and redis-py read URLs differently: kombu leaves out what it does not know, TLS among it, and would send the
password in clear. So a URL is parsed here once, and what one of the two could not follow is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from .errors import InvalidSetting
from .settings import FleetSettings

URL_SETTING = "OMNIFLEET_REDIS_URL"
SENTINELS_SETTING = "OMNIFLEET_REDIS_SENTINELS"
FORM = "Use redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path; quote the password (%2F for a slash)"
SENTINELS_FORM = "Use host:port,host:port, or rediss://user:password@host:port,host:port where they want TLS or a login"
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS = (*TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
"""Options of a `rediss://` URL: those that redis-py takes in both of its clients."""
CERT_REQS = {name: name.removeprefix("CERT_").lower() for name in ("CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED")}
SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is, and how it is spoken to."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    """Of a unix socket, in place of host and port."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: dict[str, Any] | None = None
    """redis-py's `ssl_` parameters; None without TLS."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments of redis-py's clients."""
        place = {"host": self.host, "port": self.port} if self.path is None else {"unix_socket_path": self.path}
        return place | {"db": self.database} | self.login

    @property
    def login(self) -> dict[str, Any]:
        """What both a Redis and its sentinels may ask for: user and password, and TLS."""
        secure = {} if self.tls is None else {"ssl": True, **self.tls}
        return {"username": self.username, "password": self.password} | secure

    @property
    def kombu_url(self) -> str:
        """The URL that kombu parses, without what `broker_use_ssl` says."""
        if self.path is not None:
            return f"redis://{self._userinfo}/{self.database}"
        return f"{'redis' if self.tls is None else 'rediss'}://{self._userinfo}{self._host}/{self.database}"

    @property
    def own_kombu_url(self) -> str:
        """The URL for kombu's own transports, which do not know the option that ours has for unix sockets."""
        if self.path is None:
            return self.kombu_url
        return f"redis+socket://{self._userinfo}{quote(self.path)}?virtual_host={self.database}"

    def sentinel_url(self, host: str, port: int) -> str:
        """Make kombu's URL of a sentinel: it holds the login at the Redis that the sentinel names."""
        return f"sentinel://{self._userinfo}{host}:{port}/{self.database}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def _userinfo(self) -> str:
        if self.username is None and self.password is None:
            return ""
        return f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"


@dataclass(frozen=True)
class Sentinels:
    """The sentinels that know which Redis is the master."""

    hosts: tuple[tuple[str, int], ...]
    login: dict[str, Any] = field(repr=False)
    """User, password and TLS parameters of the sentinels themselves."""


def redis_address(settings: FleetSettings) -> RedisAddress:
    """Parse the settings' URL of Redis.

    Raises:
        InvalidSetting: it is none, or has a part that not every connection could follow. The message never shows the
            password.
    """
    return _parse(settings.redis_url, URL_SETTING, FORM)


def sentinels(settings: FleetSettings) -> Sentinels | None:
    """Parse the addresses of the settings' sentinels; None where there are none.

    Raises:
        InvalidSetting: one is no address.
    """
    if settings.redis_sentinels is None:
        return None
    scheme, separator, rest = settings.redis_sentinels.rpartition("://")
    login, _, rest = rest.rpartition("@")
    places, _, options = rest.partition("?")
    hosts = tuple(_sentinel(place.strip()) for place in places.split(","))
    if not separator:
        if login or options:
            _refuse(SENTINELS_SETTING, "a login or options need a scheme before them", SENTINELS_FORM)
        return Sentinels(hosts, {})
    address = _parse(f"{scheme}://{login}{'@' if login else ''}localhost?{options}", SENTINELS_SETTING, SENTINELS_FORM)
    return Sentinels(hosts, address.login)


def _sentinel(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        _refuse(SENTINELS_SETTING, "these are no addresses", SENTINELS_FORM)
    return host.strip("[]"), int(port)


def _parse(url: str, setting: str, remedy: str) -> RedisAddress:
    try:
        parts = urlsplit(url)
        port, options = parts.port or 6379, dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        # Its message may hold a piece of the password: it is neither repeated nor chained.
        _refuse(setting, "this is no URL of a Redis", remedy)
    if parts.scheme not in SCHEMES or parts.fragment:
        _refuse(setting, "this is no URL of a Redis", remedy)
    unix = parts.scheme == "unix"
    database = options.pop("db", None) or ("" if unix else parts.path.strip("/")) or "0"
    if not database.isdecimal():
        _refuse(setting, "the database is not a number", remedy)
    if unix and (parts.hostname or not parts.path):
        _refuse(setting, "a unix socket is named by its whole path", remedy)
    return RedisAddress(
        host=unquote(parts.hostname or "localhost"),
        port=port,
        path=unquote(parts.path) if unix else None,
        username=_unquoted(parts.username),
        password=_unquoted(parts.password),
        database=int(database),
        tls=_tls(parts.scheme, options, setting),
    )


def _tls(scheme: str, options: dict[str, str], setting: str) -> dict[str, Any] | None:
    unknown = [name for name in options if name not in TLS_OPTIONS]
    if unknown:
        remedy = f"Leave it out; known are db and, with rediss://, {', '.join(TLS_OPTIONS)}"
        _refuse(setting, f"the option {unknown[0]!r} is not known", remedy)
    if scheme != "rediss":
        if options:
            _refuse(setting, f"{next(iter(options))} has no meaning without TLS", "Use rediss://")
        return None
    given = options.get("ssl_cert_reqs", "required")
    certificates = CERT_REQS.get(given, given)
    if certificates not in CERT_REQS.values():
        _refuse(setting, f"ssl_cert_reqs={given!r} is not known", "Use required, optional or none")
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in ("true", "false"):
        _refuse(setting, f"ssl_check_hostname={check!r} is not known", "Use true or false")
    files = {name: options[name] for name in TLS_FILES if name in options}
    for name, file in files.items():
        if not Path(file).is_file():
            _refuse(setting, f"{name}: there is no file {file}", "Name a PEM file that this process can read")
    return {"ssl_cert_reqs": certificates, "ssl_check_hostname": certificates != "none" and check == "true", **files}


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _refuse(setting: str, problem: str, remedy: str) -> NoReturn:
    raise InvalidSetting(problem, setting, remedy) from None
