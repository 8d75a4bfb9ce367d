"""Named adapters: what the model was taught besides its weights, stored once and named wherever sound is made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnifleet_shared.errors import AdapterInvalid, AdapterNotFound, InvalidJob
from omnifleet_shared.schema.adapter import Adapter, AdapterManifest
from omnifleet_shared.schema.jobs import invalid_job
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.adapters import CONFIG, MAX_WEIGHTS_BYTES, WEIGHTS, AdapterFiles, check_name
from pydantic import ValidationError

from .caller import caller

_REMEDY = "Give the folder `adapter` of a run of omnifleet-worker train, or one that peft saved"
_HEADER_SIZE = 8
"""Bytes before the header of a safetensors file, which hold its length."""


class Adapters:
    """The adapters of a fleet's storage: `adapter="rain-lora"` is done with the one that was added as `rain-lora`.

    Every client with that storage has the same ones. Every method may raise StorageUnavailable and StorageRefused.
    """

    def __init__(self, settings: FleetSettings, storage: Storage) -> None:
        self._settings = settings
        self._files = AdapterFiles(storage)

    def add(
        self,
        name: str,
        folder: str | os.PathLike[str],
        *,
        licence: str,
        commercial_use: bool = False,
        added_by: str | None = None,
    ) -> Adapter:
        """Store an adapter under a name. The same once more changes nothing.

        Args:
            name: up to 64 of `a-z`, `0-9`, `-` and `_`.
            folder: as `omnifleet-worker train` or peft wrote it, with adapter_config.json and
                adapter_model.safetensors.
            licence: of the adapter; that of the model that it was trained on holds besides.
            commercial_use: whether the licence allows commercial use.
            added_by: who adds it; `OMNIFLEET_PRODUCER`, or the user and the machine by default.

        Raises:
            AdapterInvalid: the folder holds no adapter in safetensors, or does not say what it was trained on.
            InvalidJob: a name that will not do or that another adapter has, no licence.
        """
        check_name(name)
        content = {file: _read(Path(folder) / file) for file in (CONFIG, WEIGHTS)}
        about = _base(content[CONFIG]) | {"rank": _rank(content[WEIGHTS])}
        about |= {"licence": licence, "commercial_use": commercial_use}
        files = {"config": _described(content[CONFIG]), "weights": _described(content[WEIGHTS])}
        added = {"added_by": added_by or caller(self._settings), "added_at": datetime.now(UTC)}
        try:
            manifest = AdapterManifest.model_validate(about | files)
            data = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
            named = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), **added}
            adapter = Adapter.model_validate(manifest.model_dump() | named)
        except ValidationError as error:
            raise invalid_job(error) from error
        return self._existing(adapter) or self._write(adapter, data, content)

    def get(self, name: str) -> Adapter:
        """Look an adapter up. Raises AdapterNotFound, and InvalidJob for what is no name."""
        return self._files.read(name)

    def list(self) -> tuple[Adapter, ...]:
        """List all adapters by their names."""
        return tuple(one for name in sorted(self._files.names()) if (one := self._found(name)) is not None)

    def remove(self, name: str) -> None:
        """Delete an adapter: its record, and its files where no other name has them.

        Jobs that name it fail with AdapterNotFound from now on. Those that are queued do so too, unless their worker
        has it in memory.

        Raises:
            AdapterNotFound: there is none of that name.
            InvalidJob: no name.
        """
        self._files.remove(name)

    def _existing(self, adapter: Adapter) -> Adapter | None:
        """The same adapter, where it is there. Raises InvalidJob where another one has its name."""
        other = self._found(adapter.name)
        if other is None:
            return None
        if other.sha256 != adapter.sha256:
            remedy = "Take another name, or remove it first"
            raise InvalidJob(f"there is another adapter {adapter.name!r}", "name", remedy)
        return other

    def _found(self, name: str) -> Adapter | None:
        try:
            return self._files.read(name)
        except AdapterNotFound:
            return None

    def _write(self, adapter: Adapter, manifest: bytes, content: Mapping[str, bytes]) -> Adapter:
        self._files.write(adapter, manifest, content)
        return adapter


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            problem = f"{path} has more than {MAX_WEIGHTS_BYTES:,} bytes"
            raise AdapterInvalid(problem, "folder", "Train one of a smaller rank, or save it in bfloat16")
        return path.read_bytes()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}"
        raise AdapterInvalid(problem, "folder", _REMEDY) from error


def _described(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _base(config: bytes) -> dict[str, Any]:
    """What it was trained on."""
    try:
        said = json.loads(config)
        base = {"base": said["base_model_name_or_path"], "revision": said["revision"]}
        is_named = said["peft_type"] == "LORA" and all(isinstance(one, str) and one.strip() for one in base.values())
    except (ValueError, KeyError, TypeError, RecursionError):
        is_named, base = False, {}
    if not is_named:
        problem = f"{CONFIG} is not that of a LoRA which says the checkpoint and revision that it was trained on"
        raise AdapterInvalid(problem, "folder", _REMEDY)
    return base


def _rank(weights: bytes) -> int:
    """The largest rank, from the file's header. What else must hold, the workers see that have the model."""
    size = int.from_bytes(weights[:_HEADER_SIZE], "little")
    try:
        header = json.loads(weights[_HEADER_SIZE : _HEADER_SIZE + size])
        return max(int(about["shape"][0]) for name, about in header.items() if name.endswith(".lora_A.weight"))
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
        remedy = f"{_REMEDY}; other formats may carry code, and are not read"
        raise AdapterInvalid(f"{WEIGHTS} holds no LoRA in safetensors", "folder", remedy) from error
