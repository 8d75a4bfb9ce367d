"""Sizes and SHA-256s of a checkpoint's files: written by the conversion, checked by `verify` and by the worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.base import Record, Sha256
from omnifleet_shared.settings import MEBIBYTE
from pydantic import Field, TypeAdapter, ValidationError
from rich.progress import Progress, TaskID

MANIFEST = "manifest.json"
COMPILED = "compiled"
"""Folder of a checkpoint's compiled code, which no manifest lists: it differs by device, and is written anew."""
_CHUNK = MEBIBYTE // 4
_REMEDY = "Convert or download the checkpoint again"


class FileRecord(Record):
    """What one file of a checkpoint was when it was written."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


Manifest = dict[str, FileRecord]
"""Records by path below the checkpoint's folder, with forward slashes. The manifest itself is not in it."""

_MANIFEST = TypeAdapter(Manifest)


def record_files(root: Path, paths: Iterable[Path], progress: Progress | None = None) -> Manifest:
    """Read files below `root` and record them, with a progress bar where `progress` shows one."""
    sizes = {path: path.stat().st_size for path in sorted(paths)}
    hashes = _hash(sizes, progress or Progress(disable=True))
    return {path.relative_to(root).as_posix(): FileRecord(bytes=sizes[path], sha256=digest) for path, digest in hashes}


def record_folder(root: Path, progress: Progress | None = None) -> Manifest:
    """Record all files below `root` but a manifest, compiled code and what is hidden.

    Raises:
        CheckpointInvalid: there is no other file.
    """
    paths = [path for path in root.rglob("*") if path.is_file() and _is_recorded(path.relative_to(root).parts)]
    if not paths:
        raise CheckpointInvalid(f"{root} holds no file", str(root), "Name the folder of a model")
    return record_files(root, paths, progress)


def _is_recorded(parts: tuple[str, ...]) -> bool:
    return parts[0] not in (MANIFEST, COMPILED) and not any(part.startswith(".") for part in parts)


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, its paths in order."""
    ordered = _MANIFEST.dump_python(dict(sorted(manifest.items())), mode="json")
    (root / MANIFEST).write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(root: Path) -> Manifest | None:
    """The checkpoint's manifest; None where it has none, as a checkpoint that nobody converted.

    Raises:
        CheckpointInvalid: the file is no manifest.
    """
    try:
        return parse_manifest((root / MANIFEST).read_bytes(), str(root / MANIFEST))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointInvalid(f"{root / MANIFEST} is no manifest: {error}", MANIFEST, _REMEDY) from error


def parse_manifest(text: bytes, place: str) -> Manifest:
    """The manifest that was read from `place`, a path or URI.

    Raises:
        CheckpointInvalid: it is none.
    """
    try:
        return _MANIFEST.validate_json(text)
    except ValidationError as error:
        raise CheckpointInvalid(f"{place} is no manifest: {error}", MANIFEST, _REMEDY) from error


def size_faults(root: Path, manifest: Manifest) -> dict[str, str]:
    """What is wrong with files by path, told from their sizes alone."""
    checks = ((path, _size_fault(root / path, record)) for path, record in manifest.items())
    return {path: fault for path, fault in checks if fault is not None}


def all_faults(root: Path, progress: Progress | None = None) -> dict[str, str]:
    """What is wrong with files by path: size, then SHA-256, and weights that the manifest does not know.

    Raises:
        CheckpointInvalid: there is no manifest.
    """
    manifest = read_manifest(root)
    if manifest is None:
        raise CheckpointInvalid(f"{root} has no {MANIFEST} to check its files by", MANIFEST, _REMEDY)
    faults = size_faults(root, manifest) | _unlisted_weights(root, manifest)
    whole = [root / path for path in manifest if path not in faults]
    found = record_files(root, whole, progress)
    changed = {path: "has another SHA-256" for path, record in found.items() if record != manifest[path]}
    return dict(sorted((faults | changed).items()))


def check_files(root: Path, *, hashes: bool = False) -> None:
    """Refuse a checkpoint whose files are not those of its manifest.

    Args:
        root: folder of the checkpoint. One without a manifest passes, unless hashes are asked for.
        hashes: read every file, which takes minutes; otherwise sizes alone are compared.

    Raises:
        CheckpointInvalid: naming the first such file.
    """
    manifest = read_manifest(root) or {}
    faults = all_faults(root) if hashes else size_faults(root, manifest)
    for path, fault in faults.items():
        more = f", and {len(faults) - 1} more files are not as converted" if len(faults) > 1 else ""
        raise CheckpointInvalid(f"{root / path} {fault}{more}", path, _REMEDY)


def hash_file(path: Path, progress: Progress, task: TaskID, total: int) -> str:
    """SHA-256 of a file; what is read is added to the task, whose total stays `total` bytes."""
    sha256 = hashlib.sha256()
    with path.open("rb") as plain, progress.wrap_file(plain, total=total, task_id=task) as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()


def _hash(sizes: dict[Path, int], progress: Progress) -> Iterator[tuple[Path, str]]:
    total = sum(sizes.values())
    task = progress.add_task("hashing", total=total)
    for path in sizes:
        yield path, hash_file(path, progress, task, total)
    progress.remove_task(task)


def _size_fault(path: Path, record: FileRecord) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    return None if size == record.bytes else f"has {size:,} bytes instead of {record.bytes:,}"


def _unlisted_weights(root: Path, manifest: Manifest) -> dict[str, str]:
    # A single file of weights is taken before an index of shards: one that was added would be loaded instead.
    found = (path.relative_to(root).as_posix() for path in root.glob("*/*.safetensors"))
    return {path: "is not in the manifest" for path in found if path not in manifest}
