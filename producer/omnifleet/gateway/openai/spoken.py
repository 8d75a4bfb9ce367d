"""The audio of a speech while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ...async_handle import AsyncJobHandle
from ...results.results import AudioResult
from .encode import OF_WORKERS, SpeechEncoder, SpeechFormat, encode


async def begin(job: AsyncJobHandle[AudioResult]) -> AudioResult | None:
    """Wait until something of a speech can be heard.

    Returns:
        All of it, where it is done by then, as a short one is: that can be sent with its length. Else None.

    Raises:
        OmnifleetError: the job failed.
    """
    async with aclosing(job.stream()) as parts:
        await anext(parts)
    return await job.result(0) if (await job.status()).is_final else None


async def encoded(job: AsyncJobHandle[AudioResult], wanted: SpeechFormat) -> AsyncGenerator[bytes]:
    """Give a speech in a format as its parts are made, from the first one on. Raises the job's error behind them."""
    encoder = SpeechEncoder(wanted)
    try:
        async with aclosing(job.stream()) as parts:
            async for part in parts:
                assert part.audio is not None, "speech is audio"
                wav = await asyncio.to_thread(part.audio.read)
                yield await asyncio.to_thread(encoder.encode, wav)
        yield await asyncio.to_thread(encoder.finish)
    finally:
        await asyncio.to_thread(encoder.close)


async def read_whole(result: AudioResult, wanted: SpeechFormat) -> AsyncGenerator[bytes]:
    """Give a speech that is done, as `encoded` gives one that is not."""
    yield await asyncio.to_thread(read_speech, result, wanted)


def read_speech(result: AudioResult, wanted: SpeechFormat) -> bytes:
    """Read a speech that is done in a format. Blocks."""
    data = result.audio.read()
    return data if wanted in OF_WORKERS else encode(data, wanted)
