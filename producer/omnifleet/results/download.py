"""Downloading by presigned link, for callers who have no access of their own to the storage."""

from __future__ import annotations

import os
import ssl
import urllib.request
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError

from omnifleet_shared.errors import InvalidSetting, MediaTooLarge, OmnifleetError, StorageRefused, StorageUnavailable
from omnifleet_shared.storage.base import read_at_most

TIMEOUT = 30
"""Seconds without a byte after which a download fails."""


def download(url: str, max_bytes: int) -> bytes:
    """Download what a link leads to.

    Raises:
        StorageRefused: not a web link, expired, or nothing there any more.
        StorageUnavailable: no answer.
        MediaTooLarge: more than `max_bytes`.
        InvalidSetting: `AWS_CA_BUNDLE` names no certificates.
    """
    # urllib would open file:// and ftp:// as well.
    if not url.startswith(("https://", "http://")):
        remedy = "Set OMNIFLEET_STORAGE to the workers' storage"
        raise StorageRefused("the audio is in a storage that is not this process's", "storage", remedy)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=_trusted()) as answer:
            data = read_at_most(answer, max_bytes)
            is_whole = _is_whole(answer)
    except HTTPError as error:
        error.close()
        raise _refusal(error.code) from error
    except (OSError, HTTPException) as error:
        raise StorageUnavailable(f"the link does not answer: {error}", "url") from error
    if len(data) > max_bytes:
        raise MediaTooLarge(f"the link leads to more than {max_bytes:,} bytes", "url")
    if not is_whole:
        raise StorageUnavailable("the link broke off its answer", "url")
    return data


def _is_whole(answer: HTTPResponse) -> bool:
    """Whether an answer that was read has ended: http.client, read in parts, takes a broken connection for the end."""
    if answer.length is not None:
        return answer.length == 0
    # Without a length it ends with its connection, if it says so, or is of HTTP/1.0; else its headers broke off.
    ends_with_connection = answer.version == 10 or answer.headers.get("Connection", "").lower() == "close"
    return answer.chunked or ends_with_connection


def _trusted() -> ssl.SSLContext:
    """Trust the system's authorities, and those that S3 is verified with."""
    context = ssl.create_default_context()
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        try:
            context.load_verify_locations(bundle)
        except (OSError, ssl.SSLError) as error:
            remedy = "Name a file of certificates in PEM form"
            raise InvalidSetting(f"{bundle!r} cannot be read: {error}", "AWS_CA_BUNDLE", remedy) from error
    return context


def _refusal(code: int) -> OmnifleetError:
    if code >= 500 or code == 429:
        return StorageUnavailable(f"the object storage is busy ({code})", "url")
    remedy = "Links expire: read the result anew, or with credentials for the storage"
    return StorageRefused(f"the link is refused ({code})", "url", remedy)
