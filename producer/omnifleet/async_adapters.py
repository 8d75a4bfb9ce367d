"""Named adapters for asyncio: what `Adapters` does, without blocking the event loop."""

from __future__ import annotations

import os
from functools import partial

from omnifleet_shared.schema.adapter import Adapter

from .adapters import Adapters
from .transport.executor import BlockingExecutor


class AsyncAdapters:
    """The adapters of a fleet's storage: `adapter="rain-lora"` is done with the one that was added as `rain-lora`.

    Every client with that storage has the same ones. Every method may raise StorageUnavailable and StorageRefused.
    """

    def __init__(self, adapters: Adapters, executor: BlockingExecutor) -> None:
        self._adapters = adapters
        self._executor = executor

    async def add(
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
        add = partial(self._adapters.add, licence=licence, commercial_use=commercial_use, added_by=added_by)
        return await self._executor.run(add, name, folder)

    async def get(self, name: str) -> Adapter:
        """Look an adapter up. Raises AdapterNotFound, and InvalidJob for what is no name."""
        return await self._executor.run(self._adapters.get, name)

    async def list(self) -> tuple[Adapter, ...]:
        """List all adapters by their names."""
        return await self._executor.run(self._adapters.list)

    async def remove(self, name: str) -> None:
        """Delete an adapter: its record, and its files where no other name has them.

        Jobs that name it fail with AdapterNotFound from now on. Those that are queued do so too, unless their worker
        has it in memory.

        Raises:
            AdapterNotFound: there is none of that name.
            InvalidJob: no name.
        """
        await self._executor.run(self._adapters.remove, name)
