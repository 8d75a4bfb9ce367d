"""The parts of a fake fleet's streamed jobs."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import soundfile
from omnifleet_shared.keys import STREAMED_KEY
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Artifact, JobResult
from omnifleet_shared.storage import Storage

PART_SECONDS = 10


def make_parts(storage: Storage, result: JobResult) -> list[StreamedPart]:
    """Cut a result into the parts of a streamed job: a word each, or up to 10 s of sound; a short one has none."""
    if result.artifact is None:
        words = re.findall(r"\s*\S+\s*$|\s*\S+", result.text or "")
        return [StreamedPart(number=number, text=word) for number, word in enumerate(words, 1)]
    if result.artifact.seconds <= PART_SECONDS:
        return []
    made = io.BytesIO(storage.get(result.artifact.uri, max_bytes=result.artifact.bytes))
    files: Any = soundfile.SoundFile
    with files(made) as file:
        blocks = file.blocks(PART_SECONDS * file.samplerate, dtype="int16", always_2d=True)
        stretches = [_wav(block, file.samplerate) for block in blocks]
    return [_stored(storage, result, number, *stretch) for number, stretch in enumerate(stretches, 1)]


def _wav(samples: Any, sample_rate: int) -> tuple[bytes, dict[str, Any]]:
    file, write = io.BytesIO(), soundfile.write
    write(file, samples, sample_rate, subtype="PCM_16", format="WAV")
    frames, channels = samples.shape
    return file.getvalue(), {"seconds": frames / sample_rate, "sample_rate": sample_rate, "channels": channels}


def _stored(storage: Storage, result: JobResult, number: int, data: bytes, form: dict[str, Any]) -> StreamedPart:
    key = STREAMED_KEY.format(job_id=result.job_id, attempt=1, number=number)
    stored = storage.put(key, io.BytesIO(data), content_type="audio/wav")
    url, sha256 = storage.url(stored.uri, 3600), hashlib.sha256(data).hexdigest()
    audio = Artifact(uri=stored.uri, url=url, sha256=sha256, bytes=len(data), format="wav", **form)
    return StreamedPart(number=number, audio=audio)
