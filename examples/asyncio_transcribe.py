"""Transcribe many recordings at once on one event loop: python asyncio_transcribe.py one.wav two.wav"""

import asyncio
import sys

from omnifleet import AsyncClient


async def transcribe(omni: AsyncClient, path: str) -> str:
    job = await omni.understand("transcribe", path)
    # Where this task is cancelled, the job is stopped too.
    result = await job.result(timeout=300, cancel_job=True)
    return result.text


async def main(*paths: str) -> None:
    async with AsyncClient() as omni:
        texts = await asyncio.gather(*(transcribe(omni, path) for path in paths))
    for path, text in zip(paths, texts, strict=True):
        print(f"{path}: {text}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
