"""Recordings of open corpora with their tags and splits, none of which is in two splits.

ESC-50 (Piczak 2015), FSD50K (arXiv 2010.00475) and MUSAN (arXiv 1510.08484) as their archives unpack.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from omnifleet_shared.errors import InvalidTrainingData

from ..training.examples.latent_cache import hash_file
from .recipe import Corpus, Split

_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aiff"}
_STRICTEST_FIRST: tuple[Split, ...] = ("test", "validation", "train")
_ESC50_FOLDS: dict[str, Split] = {"4": "validation", "5": "test"}
_HELD_OUT = 0.1
"""Share of recordings without a split of their own that are for the test, and as many for validation."""


@dataclass(frozen=True)
class Recording:
    """A recording of one kind of sound.

    Attributes:
        path: of the file.
        tag: what sounds, in words.
        split: that it may be used in.
        sha256: of the file.
    """

    path: Path
    tag: str
    split: Split
    sha256: str


@dataclass(frozen=True)
class _Listed:
    path: Path
    tag: str
    split: Split | None


def find_recordings(corpora: Sequence[Corpus], workers: int = 1) -> list[Recording]:
    """List the recordings of all corpora, in an order that does not depend on the file system.

    A file whose bytes are in several splits, under whatever name, stays in the test split alone, else in validation.

    Args:
        corpora: where they are.
        workers: threads that read the files.

    Raises:
        InvalidTrainingData: a corpus is not as its archive unpacks, or lists a file that is not there.
    """
    listed = [one for corpus in corpora for one in _list_corpus(corpus)]
    for one in listed:
        if not one.path.is_file():
            raise InvalidTrainingData(f"there is no file {one.path}", "corpora", "Unpack the corpus again")
    with ThreadPoolExecutor(workers) as threads:
        hashes = list(threads.map(hash_file, (one.path for one in listed)))
    found = [
        Recording(one.path, one.tag, one.split or split_of(sha), sha) for one, sha in zip(listed, hashes, strict=True)
    ]
    return list(_without_leaks(found))


def split_of(sha256: str) -> Split:
    """The split of a file whose corpus gives it none: by its bytes, so that copies share it."""
    place = int(sha256[:8], 16) / 2**32
    return "test" if place < _HELD_OUT else "validation" if place < 2 * _HELD_OUT else "train"


def _without_leaks(recordings: Iterable[Recording]) -> Iterator[Recording]:
    seen: set[str] = set()
    for one in sorted(recordings, key=lambda one: (_STRICTEST_FIRST.index(one.split), str(one.path))):
        if one.sha256 not in seen:
            seen.add(one.sha256)
            yield one


def _list_corpus(corpus: Corpus) -> list[_Listed]:
    listing = {"folder": _list_folder, "esc50": _list_esc50, "fsd50k": _list_fsd50k, "musan": _list_musan}
    listed = list(listing[corpus.kind](corpus.folder))
    if not listed:
        raise InvalidTrainingData(f"{corpus.folder} holds no recordings of a {corpus.kind} corpus", "corpora")
    return listed


def _list_folder(folder: Path) -> Iterator[_Listed]:
    for path in sorted(folder.glob("*/**/*")):
        if path.suffix.lower() in _SUFFIXES:
            yield _Listed(path, _words(path.relative_to(folder).parts[0]), None)


def _list_musan(folder: Path) -> Iterator[_Listed]:
    for tag in ("music", "noise", "speech"):
        for path in sorted((folder / tag).glob("*/*.wav")):
            yield _Listed(path, tag, None)


def _list_esc50(folder: Path) -> Iterator[_Listed]:
    for row in _rows(folder / "meta/esc50.csv", "filename", "fold", "category"):
        split = _ESC50_FOLDS.get(row["fold"], "train")  # clips of one recording are in one fold
        yield _Listed(folder / "audio" / row["filename"], _words(row["category"]), split)


def _list_fsd50k(folder: Path) -> Iterator[_Listed]:
    truth = folder / "FSD50K.ground_truth"
    for row in _rows(truth / "dev.csv", "fname", "labels", "split"):
        split: Split = "validation" if row["split"] == "val" else "train"
        yield _Listed(folder / "FSD50K.dev_audio" / f"{row['fname']}.wav", _first_label(row), split)
    for row in _rows(truth / "eval.csv", "fname", "labels"):
        yield _Listed(folder / "FSD50K.eval_audio" / f"{row['fname']}.wav", _first_label(row), "test")


def _rows(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            missing = set(columns) - set(table.fieldnames or ())
            if missing:
                raise InvalidTrainingData(f"{path} has no column {sorted(missing)[0]}", "corpora")
            yield from table
    except OSError as error:
        remedy = "Name the folder that the archive unpacks to"
        raise InvalidTrainingData(f"{path} cannot be read: {error.strerror}", "corpora", remedy) from error


def _first_label(row: dict[str, str]) -> str:
    """The narrowest one: its parents follow it."""
    return _words(row["labels"].split(",")[0])


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").lower()
