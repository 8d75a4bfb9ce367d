"""Files of compiled code, in the folder `compiled` of a checkpoint and of what is stored of it. Needs no torch.

Each is for one kind of device, one variant and the versions of this installation, as its name says, and is sealed: what
is damaged, or was given another's name, is never handed to torch. It is code all the same. Whoever may write to the
folder of a checkpoint decides what its workers run.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from omnifleet_shared.atomic_file import write_atomically
from omnifleet_shared.errors import InvalidSetting, MediaNotFound
from omnifleet_shared.settings import MEBIBYTE
from omnifleet_shared.storage import Storage

from ..sealed_bytes import seal, unseal
from .manifest import COMPILED, MANIFEST

MAX_BYTES = 1024 * MEBIBYTE
_BUILT_BY = ("torch", "transformers", "diffusers", "omnifleet")

logger = logging.getLogger(__name__)


def name_code(*about: str) -> str:
    """Name the file of the code that is about these words, such as the device's name, for this installation."""
    words = re.findall(r"[a-z0-9]+", " ".join(about).lower())
    return "-".join([*words, _installation()]) + ".bin"


def read_code(path: Path) -> bytes | None:
    """Read what `write_code` wrote; None where it is damaged, which is logged. Raises FileNotFoundError."""
    code = unseal(path.read_bytes(), path.name)
    if code is None:
        logger.warning("%s is damaged, and of no use", path, extra={"action": "compiled_code_unreadable"})
    return code


def write_code(path: Path, code: bytes) -> None:
    """Write code to its file in one step: readers, and others who write the same, see all of it or none."""
    _write(path, seal(code, path.name))


def fetch_code(source: Storage, folder: Path) -> list[str]:
    """Fetch what is stored of compiled code for this installation, and is not in the folder yet.

    Args:
        source: storage whose root is the checkpoint.
        folder: of the checkpoint on this machine.

    Returns:
        Names of the files that are there now. One that is damaged where it is stored is logged, and left out.

    Raises:
        OSError: the folder cannot be written to.
        StorageUnavailable, StorageRefused: from the storage.
    """
    found = {PurePosixPath(source.key(stored.uri)).name: stored.uri for stored in source.list(f"{COMPILED}/")}
    ours = sorted(name for name in found if name.endswith(f"-{_installation()}.bin"))
    return [name for name in ours if _fetch(source, found[name], folder / COMPILED / name)]


def require_same_checkpoint(storage: Storage, folder: Path) -> None:
    """Compare a stored checkpoint's manifest with that of a folder.

    Raises:
        InvalidSetting: they are not the same, or one has none.
        StorageUnavailable, StorageRefused: from the storage.
    """
    try:
        is_same = storage.get(storage.uri(MANIFEST), max_bytes=16 * MEBIBYTE) == (folder / MANIFEST).read_bytes()
    except (MediaNotFound, FileNotFoundError):
        is_same = False
    if not is_same:
        problem = f"{storage.uri('')} does not hold the checkpoint of {folder}"
        raise InvalidSetting(problem, "--store", f"Name the folder of the same {MANIFEST}")


def store_code(storage: Storage, path: Path) -> str:
    """Put a file of compiled code beside a stored checkpoint, for `fetch_code`.

    Args:
        storage: whose root is the checkpoint.
        path: of the file.

    Returns:
        The URI that it has there.

    Raises:
        StorageUnavailable, StorageRefused: from the storage.
    """
    data = io.BytesIO(path.read_bytes())
    return storage.put(f"{COMPILED}/{path.name}", data, content_type="application/octet-stream").uri


def _fetch(source: Storage, uri: str, path: Path) -> bool:
    """Whether the file is there, whole."""
    if path.is_file() and unseal(path.read_bytes(), path.name) is not None:
        return True
    data = source.get(uri, max_bytes=MAX_BYTES)
    if unseal(data, path.name) is None:
        logger.warning("%s is damaged, and left out", uri, extra={"action": "compiled_code_unreadable"})
        return False
    _write(path, data)
    return True


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with write_atomically(path) as file:
        file.write(data)


def _installation() -> str:
    versions = [f"{name} {version(name)}" for name in _BUILT_BY]
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]
