"""A client with the model in this process: no fleet, no Redis, no storage server. Needs `omnifleet[worker]`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from omnifleet_shared.settings import load_settings
from omnifleet_shared.storage import FolderStorage, Storage

from .client import Client


class LocalModel(Client):
    """A client whose jobs run in this process, on one checkpoint that is loaded once.

    Jobs run in the background and share the engine's steps, as in a worker: submit several, then ask for results.

    Args:
        checkpoint: its folder, in diffusers' layout.
        device: torch device; `auto` takes the first visible GPU, else the CPU.
        dtype: of the transformer and the thinker; `auto` is bfloat16 on a GPU and float32 on a CPU.
        max_batch: requests that share a step.
        folder: where media and results are kept; a temporary folder that is gone after `close` by default.

    Raises:
        CheckpointInvalid: the folder is not a whole checkpoint.
        InvalidSetting: `omnifleet[worker]` is not installed, or the device does not exist, or has too little memory.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        max_batch: int = 8,
        folder: str | Path | None = None,
    ) -> None:
        # Here and not above: `import omnifleet` must load neither torch nor the worker.
        from omnifleet_worker.installation import require_libraries

        require_libraries()
        from omnifleet_worker.engines.table import choose_engine
        from omnifleet_worker.settings import WorkerSettings

        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="omnifleet-")
        home = Path(folder or (self._temporary.name if self._temporary else ".")).resolve()
        settings = load_settings(
            WorkerSettings,
            checkpoint=Path(checkpoint),
            device=device,
            dtype=dtype,
            max_batch=max_batch,
            storage=f"file://{home}",
        )
        storage: Storage = FolderStorage(home)
        try:
            choose_engine(settings)
            from omnifleet_worker.local import LocalTransport

            self._local = LocalTransport(settings, storage)
        except BaseException:
            self._remove_folder()
            raise
        settings = settings.model_copy(update={"models": self._local.model_name})
        super().__init__(settings, storage=storage, transport=self._local)

    def close(self) -> None:
        """End the engine; jobs that are not done fail with EngineStopped."""
        self._local.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
