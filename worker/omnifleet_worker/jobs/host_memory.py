"""The host's memory for the media of jobs that run at once: a job waits for room before it fetches and decodes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)
FREE_SHARE = 0.8
"""Of the memory that is free once the checkpoint is loaded; the rest is for libraries and for what is made of media."""
FETCHED_SHARE = 0.5
"""Of the budget, up to which files are fetched: the rest is left for decoding them, so that nobody waits for ever."""
LOOK_SECONDS = 0.25
"""Between two looks of a waiting job whether it was cancelled or is too late."""
_UNLIMITED = 2**60
"""From here on a limit of control groups says that there is none."""


class HostMemory:
    """A budget in bytes, shared by all jobs of a process. What is larger than all of it has it alone.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._changed = threading.Condition()
        self._held: dict[Room, int] = {}
        self._waiting: list[Room] = []

    @property
    def reserved(self) -> int:
        """Bytes that jobs hold or were promised."""
        with self._changed:
            return sum(self._held.values())

    @property
    def waiting(self) -> int:
        """Jobs that wait for room."""
        return len(self._waiting)

    @contextmanager
    def room(self, job_id: str, check: Callable[[], None]) -> Iterator[Room]:
        """Give a job room of no bytes yet, until the end of the block.

        Args:
            job_id: for the log.
            check: called while the job waits; what it raises ends the wait.
        """
        room = Room(self, job_id, check)
        try:
            yield room
        finally:
            self.note(room, None)

    def wait(self, room: Room, size: int) -> None:
        """Wait until the room may hold so many bytes in all. Raises what its `check` raises."""
        with self._changed:
            self._waiting.append(room)
            try:
                if not self._may_have(room, size):
                    extra = {"action": "job_waits_for_memory", "job_id": room.job_id, "bytes": size}
                    logger.info("job waits for %.2f GB of memory: %s", size / 1e9, room.job_id, extra=extra)
                while not self._may_have(room, size):
                    self._changed.wait(LOOK_SECONDS)
                    room.check()
                self._held[room] = size
            finally:
                self._waiting.remove(room)
                self._changed.notify_all()

    def _may_have(self, room: Room, size: int) -> bool:
        """Whether it is the room's turn and there are so many bytes, or nobody else at work who could leave some."""
        # First come, first served, but who holds something already goes before who would add to it.
        first = min(self._waiting, key=lambda one: one not in self._held)
        if first is not room:
            return False
        others = [one for one in self._held if one is not room]
        fits = sum(self._held[one] for one in others) + size <= self.limit
        if not room.decodes:
            fetched = sum(self._held[one] for one in others if not one.decodes)
            fits = fits and fetched + size <= FETCHED_SHARE * self.limit
        return fits or all(one in self._waiting for one in others)

    def note(self, room: Room, size: int | None) -> None:
        """Note what the room really holds; None where it holds nothing any more."""
        with self._changed:
            if size is None:
                self._held.pop(room, None)
            else:
                self._held[room] = size
            self._changed.notify_all()


class Room:
    """What one job has of the budget; made by `HostMemory.room`."""

    def __init__(self, memory: HostMemory, job_id: str, check: Callable[[], None]) -> None:
        self.job_id = job_id
        self.check = check
        self.decodes = False
        """Whether what was fetched is decoded, or about to be."""
        self._memory = memory

    def await_fetching(self, size: int) -> None:
        """Wait until files of so many bytes may be fetched. Raises what `check` raises."""
        self._memory.wait(self, size)

    def await_decoding(self, size: int) -> None:
        """Wait until the job may hold so many bytes in all. Raises what `check` raises."""
        self.decodes = True
        self._memory.wait(self, size)

    def settle(self, size: int) -> None:
        """Note what the job really holds."""
        self._memory.note(self, size)


def host_memory(limit: int | None, root: Path = Path("/")) -> HostMemory:
    """Make the budget: of so many bytes, or of the memory that is free now, in the container or the machine.

    Args:
        limit: bytes; None for 80 % of what is free.
        root: where `/proc` and `/sys` are.
    """
    if limit is None:
        machine = _fields(root / "proc/meminfo")["MemAvailable:"] * 1024
        limit = int(FREE_SHARE * min(machine, *_free_in_groups(root)))
    extra = {"action": "host_memory_planned", "bytes": limit}
    logger.info("decoded media of all jobs may take %.1f GB of memory", limit / 1e9, extra=extra)
    return HostMemory(limit)


def _free_in_groups(root: Path) -> Iterator[int]:
    """What this process's control groups leave, of either version of them; many bytes where nothing limits it."""
    yield _UNLIMITED
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        # A container sees its own group at the top, whatever the path says.
        for group in (top / path.strip("/"), top):
            yield _free_in(group)


def _free_in(group: Path) -> int:
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for limit_name, usage_name in names:
        if (group / limit_name).exists() and (limit := (group / limit_name).read_text().strip()) != "max":
            # Pages of files that were read count as used, and make room when it is needed.
            pages = _fields(group / "memory.stat")
            cached = pages.get("total_inactive_file", pages.get("inactive_file", 0))
            return max(0, int(limit) - int((group / usage_name).read_text()) + cached)
    return _UNLIMITED


def _fields(path: Path) -> dict[str, int]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return {name: int(value) for name, value, *_ in lines}
