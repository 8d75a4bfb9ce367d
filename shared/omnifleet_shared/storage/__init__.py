"""Object storage behind one small interface: any S3 API, or a folder."""

from __future__ import annotations

from ..errors import InvalidSetting
from ..settings import FleetSettings
from .base import ListedObject, Storage, StoredObject
from .folder import FolderStorage

__all__ = ["FolderStorage", "ListedObject", "Storage", "StoredObject", "open_storage", "storage_home"]


def open_storage(settings: FleetSettings) -> Storage:
    """Open the storage that `settings.storage` names.

    Raises:
        InvalidSetting: neither an `s3://` nor a `file://` URI.
    """
    scheme, _, place = settings.storage.partition("://")
    if scheme == "s3" and place.partition("/")[0]:
        from .s3 import S3Storage  # boto3, a fifth of what importing omnifleet would take

        return S3Storage(settings)
    if scheme == "file" and place.startswith("/"):
        return FolderStorage(place)
    remedy = "Use s3://bucket/prefix or file:///folder"
    raise InvalidSetting(f"{settings.storage!r} is no storage", "OMNIFLEET_STORAGE", remedy)


def storage_home(settings: FleetSettings) -> str:
    """Give the URI below which everything is stored, without opening the storage."""
    scheme, _, place = settings.storage.partition("://")
    return FolderStorage(place).uri("") if scheme == "file" else settings.storage.rstrip("/")
