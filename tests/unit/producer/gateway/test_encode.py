"""Speech in the formats of OpenAI's clients: one file, however many it is made of."""

from __future__ import annotations

import gc
import io
import struct
import threading
import time
from contextlib import closing
from typing import get_args

import av
import numpy as np
import pytest
import soundfile
from omnifleet.gateway.openai.encode import FORMS, PCM_RATE, SpeechEncoder, SpeechFormat, encode
from support.data import media_files

SECONDS = (1.5, 0.7, 2.0)
WAVS = [media_files.wav(seconds, 44_100, 2) for seconds in SECONDS]
CODECS = {"mp3": "mp3float", "opus": "opus", "aac": "aac", "flac": "flac", "wav": "pcm_s16le"}


def decoded(audio: bytes) -> tuple[str, int, float]:
    """Codec, samples a second, and seconds."""
    with av.open(io.BytesIO(audio), "r") as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
        stream = file.streams.audio[0]
        return stream.codec_context.name, stream.rate, samples / stream.rate


def streamed(wanted: SpeechFormat) -> list[bytes]:
    """What can be sent after each file, and at the end."""
    with closing(SpeechEncoder(wanted)) as encoder:
        return [*(encoder.encode(wav) for wav in WAVS), encoder.finish()]


@pytest.mark.parametrize("wanted", CODECS)
def test_files_one_behind_the_other_are_one_that_sounds_as_long(wanted: SpeechFormat) -> None:
    codec, rate, seconds = decoded(b"".join(streamed(wanted)))

    assert (codec, rate) == (CODECS[wanted], FORMS[wanted].rate)
    assert seconds == pytest.approx(sum(SECONDS), abs=0.1)


@pytest.mark.parametrize("wanted", CODECS)
def test_all_but_the_last_moment_of_a_file_can_be_heard_at_once(wanted: SpeechFormat) -> None:
    _, _, seconds = decoded(streamed(wanted)[0])

    assert seconds == pytest.approx(SECONDS[0], abs=0.25)


@pytest.mark.parametrize("wanted", ["wav", "flac"])
def test_what_loses_nothing_has_every_sample(wanted: SpeechFormat) -> None:
    with av.open(io.BytesIO(b"".join(streamed(wanted))), "r") as file:
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])

    source = np.concatenate([soundfile.read(io.BytesIO(wav), dtype="int16")[0] for wav in WAVS])
    assert np.array_equal(heard, source.ravel())


def test_the_length_of_a_streamed_wav_is_unknown() -> None:
    head = streamed("wav")[0][:44]

    assert (head[:4], head[8:16], head[36:40]) == (b"RIFF", b"WAVEfmt ", b"data")
    assert struct.unpack("<I", head[4:8]) == struct.unpack("<I", head[40:44]) == (0xFFFFFFFF,)


def test_pcm_is_one_channel_of_16_bits_at_24_khz() -> None:
    samples = np.frombuffer(b"".join(streamed("pcm")), "<i2")

    assert len(samples) / PCM_RATE == pytest.approx(sum(SECONDS), abs=0.01)
    assert np.abs(samples).max() > 1000


@pytest.mark.parametrize("wanted", get_args(SpeechFormat))
def test_a_single_file_is_a_stream_of_one(wanted: SpeechFormat) -> None:
    with closing(SpeechEncoder(wanted)) as encoder:
        streamed = encoder.encode(WAVS[0]) + encoder.finish()

    assert len(encode(WAVS[0], wanted)) == len(streamed)


@pytest.mark.parametrize("wanted", get_args(SpeechFormat))
def test_one_that_is_left_in_the_middle_is_closed_behind_what_it_still_encodes(wanted: SpeechFormat) -> None:
    encoder = SpeechEncoder(wanted)
    encoding = threading.Thread(target=encoder.encode, args=[WAVS[2]])
    encoding.start()
    while encoding.is_alive() and not encoder._lock.locked():
        time.sleep(0.001)

    encoder.close()

    encoding.join()
    assert encoder.encode(WAVS[0]) == b""
    del encoder
    gc.collect()  # which ends a process that left it open
