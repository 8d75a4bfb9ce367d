"""Named voices for asyncio: what `Voices` does, without blocking the event loop."""

from __future__ import annotations

from omnifleet_shared.schema.voice import Voice

from .request.uploads import MediaSource
from .transport.executor import BlockingExecutor
from .voices import Voices


class AsyncVoices:
    """The voices of a fleet's storage: `ref="voice:anna"` speaks with the one that was added as `anna`.

    Every client with that storage has the same ones. Every method may raise StorageUnavailable and StorageRefused.
    """

    def __init__(self, voices: Voices, executor: BlockingExecutor) -> None:
        self._voices = voices
        self._executor = executor

    async def add(
        self, name: str, audio: MediaSource, *, consent: str, text: str | None = None, added_by: str | None = None
    ) -> Voice:
        """Store a voice under a name. The same once more changes nothing.

        Args:
            name: up to 64 of `a-z`, `0-9`, `-` and `_`.
            audio: a recording of it; its last 6 seconds are used.
            consent: who agreed to what, and where that is written down.
            text: what is said in the recording; the model transcribes it by default.
            added_by: who adds it; `OMNIFLEET_PRODUCER`, or the user and the machine by default.

        Raises:
            InvalidJob: a name that will not do or that another voice has, no consent.
            MediaError, ForeignURI: the recording.
        """
        return await self._executor.run(self._voices.add, name, audio, consent=consent, text=text, added_by=added_by)

    async def get(self, name: str) -> Voice:
        """Look a voice up. Raises VoiceNotFound, and InvalidJob for what is no name."""
        return await self._executor.run(self._voices.get, name)

    async def list(self) -> tuple[Voice, ...]:
        """List all voices by their names."""
        return await self._executor.run(self._voices.list)

    async def remove(self, name: str) -> None:
        """Delete a voice for good: its record, its recording, and all that workers keep of it in the storage.

        Jobs that name it fail with VoiceNotFound from now on, those that are queued already too. Removing it again
        deletes what an interrupted removal left behind.

        Raises:
            VoiceNotFound: there is none of that name.
            InvalidJob: no name.
        """
        await self._executor.run(self._voices.remove, name)
