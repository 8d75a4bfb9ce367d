"""Speech in the formats of OpenAI's clients."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from omnifleet.gateway.openai.encode import PCM_RATE, SpeechFormat, encode
from support.data import media_files

SECONDS = 1.5
WAV = media_files.wav(SECONDS, 44_100, 2)


@pytest.mark.parametrize(("wanted", "codec", "rate"), [("opus", "opus", 48_000), ("aac", "aac", 44_100)])
def test_a_compressed_file_sounds_as_long(wanted: SpeechFormat, codec: str, rate: int) -> None:
    with av.open(io.BytesIO(encode(WAV, wanted)), "r") as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
        stream = file.streams.audio[0]

    assert (stream.codec_context.name, stream.rate) == (codec, rate)
    assert samples / rate == pytest.approx(SECONDS, abs=0.1)


def test_pcm_is_one_channel_of_16_bits_at_24_khz() -> None:
    samples = np.frombuffer(encode(WAV, "pcm"), "<i2")

    assert len(samples) / PCM_RATE == pytest.approx(SECONDS, abs=0.01)
    assert np.abs(samples).max() > 1000
