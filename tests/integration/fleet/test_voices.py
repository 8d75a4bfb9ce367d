"""Named voices, and transcripts with times, through a real worker and a real S3 API."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from omnifleet import Client, FleetSettings, InvalidJob, VoiceNotFound
from omnifleet.request.calls import generate
from omnifleet.request.maker import JobMaker
from omnifleet_shared.storage import Storage, open_storage
from support.data import media_files

WAIT = 240.0
RECORDING = media_files.wav(7.0, 48_000, 2)


@pytest.fixture
def storage(settings: FleetSettings) -> Storage:
    return open_storage(settings)


@pytest.fixture
def anna(omni: Client) -> Iterator[str]:
    omni.voices.add("anna", RECORDING, text="Good morning", consent="a contract")
    yield "voice:anna"
    if any(voice.name == "anna" for voice in omni.voices.list()):
        omni.voices.remove("anna")


def kept(storage: Storage) -> list[str]:
    return [storage.key(found.uri) for found in storage.list("voices/")]


def test_a_voice_speaks_as_its_recording_does_and_is_kept(omni: Client, storage: Storage, anna: str) -> None:
    said = {"text": "Hello", "steps": 1, "seed": 3}

    plain = omni.generate("tts", ref=RECORDING, ref_text="Good morning", **said).result(WAIT)  # type: ignore[arg-type]
    named = [omni.generate("tts", ref=anna, **said).result(WAIT) for _ in range(2)]  # type: ignore[arg-type]

    assert {one.audio.sha256 for one in named} == {plain.audio.sha256}
    assert len([key for key in kept(storage) if key.rpartition("/")[2].count(".") == 1]) == 2  # the record, the samples


def test_a_job_that_was_queued_before_its_voice_was_removed_fails_with_its_error(
    omni: Client, settings: FleetSettings, storage: Storage, anna: str
) -> None:
    omni.generate("tts", "Hello", ref=anna, steps=1).result(WAIT)
    job, *_ = JobMaker(settings, storage).make(generate("tts", "Hello", ref=anna, steps=1))

    omni.voices.remove("anna")
    omni.sender.transport.submit(job)

    with pytest.raises(VoiceNotFound, match="the voice 'anna' was removed") as missing:
        omni.job(job.job_id).result(WAIT)
    assert missing.value.field == "ref"
    assert kept(storage) == []


@pytest.mark.parametrize("timestamps", ["word", "segment"])
def test_a_transcript_has_its_times_in_order_and_inside(omni: Client, tmp_path: Path, timestamps: str) -> None:
    sound = media_files.wav(4.0, 16_000)

    result = omni.understand("transcribe", sound, timestamps=timestamps, max_new_tokens=8).result(WAIT)  # type: ignore[arg-type]

    transcript = result.record.transcript
    assert transcript is not None and transcript.seconds == 4.0
    times = result.words if timestamps == "word" else result.segments
    assert times is not None
    assert all(one.start <= one.end <= after.start for one, after in pairwise(times))
    assert result.save(tmp_path / "said.vtt").read_text().startswith("WEBVTT")


def test_a_timed_transcript_is_streamed_part_by_part(omni: Client) -> None:
    tones = np.concatenate([media_files.tone(2.0, 16_000), np.zeros((1, 16_000), np.float32)] * 3, axis=1)
    sound = media_files.encode("wav", tones, 16_000)

    job = omni.understand("transcribe", sound, timestamps="segment", max_new_tokens=8, stream=True)
    parts = [part.text for part in job.stream(timeout=WAIT)]
    result = job.result(WAIT)

    assert len(parts) == 3
    assert "".join(text or "" for text in parts) == result.text
    assert result.segments is not None


def test_a_span_beyond_the_recording_is_the_worker_s_error(omni: Client) -> None:
    with pytest.raises(InvalidJob, match="it ends at 9 s, and the recording at 2") as refused:
        omni.edit("Speech", media_files.wav(2.0, 16_000), span=(1, 9), text="hello").result(WAIT)

    assert refused.value.field == "span"
