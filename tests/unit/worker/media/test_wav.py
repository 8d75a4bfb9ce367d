"""Wav files are read by what is in them, whatever sizes, containers and odd bytes their writers left."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaEmpty, MediaUnreadable, OmnifleetError
from omnifleet_worker.media.decode import DecodedAudio, decode_audio
from support.data import media_files

RATE = 16_000
PCM = (media_files.tone(1.0, RATE)[0] * 32_767).astype("<i2")


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def wav(
    samples: bytes = PCM.tobytes(),
    *,
    bits: int = 16,
    valid: int | None = None,
    channels: int = 1,
    tag: int = 1,
    mask: int | None = None,
    riff_size: int | None = None,
    data_size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A wav file with the header's numbers as they are passed; EXTENSIBLE with `valid` or `mask`."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, RATE, RATE * block, block, bits)
    if valid is not None or mask is not None:
        guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        form = struct.pack("<HHIIHH", 0xFFFE, channels, RATE, RATE * block, block, bits)
        form += struct.pack("<HHI", 22, valid or bits, mask or 0) + guid
    body = b"WAVE" + chunk(b"fmt ", form) + before + chunk(b"data", samples, data_size) + after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def decoded(data: bytes) -> NDArray[np.int64]:
    return np.rint(decode_audio(data, exact=True).samples[0] * 32_768).astype(np.int64)


WHOLE = len(wav())
UNKNOWN = [0, 0x7FFF0000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF, 2_000_000_000, WHOLE, WHOLE - 8]


@pytest.mark.parametrize("size", UNKNOWN)
@pytest.mark.parametrize("riff_size", [None, 0, 0xFFFFFFFF, 2_000_000_036])
def test_sizes_that_were_not_known_are_to_the_end(size: int, riff_size: int | None) -> None:
    np.testing.assert_array_equal(decoded(wav(data_size=size, riff_size=riff_size)), PCM)


@pytest.mark.parametrize("size", UNKNOWN)
def test_joined_streams_of_unknown_sizes_are_heard_to_the_end_without_their_headers(size: int) -> None:
    np.testing.assert_array_equal(decoded(wav(data_size=size) * 3), np.tile(PCM, 3))


def test_a_size_that_is_neither_is_a_cut_file() -> None:
    with pytest.raises(MediaUnreadable, match="cut off: it declares 32144 bytes and holds 32044") as refused:
        decode_audio(wav(data_size=len(PCM) * 2 + 100))

    assert refused.value.details == {"declared_bytes": 32_144, "found_bytes": 32_044}


@pytest.mark.parametrize(("bits", "channels", "missing"), [(16, 1, 1), (24, 1, 2), (16, 2, 3), (32, 2, 1)])
def test_a_sample_cut_in_half_costs_that_sample(bits: int, channels: int, missing: int) -> None:
    frame = bits // 8 * channels
    samples = bytes(range(1, frame + 1)) * 2_000

    audio = decode_audio(wav(samples[:-missing], bits=bits, channels=channels))

    assert audio.samples.shape == (channels, 1_999)


@pytest.mark.parametrize("valid", [24, 20])
def test_24_bits_in_32_are_integers(valid: int) -> None:
    values = (PCM.astype("<i4") << 16) + 256 * 7

    samples = decode_audio(wav(values.tobytes(), bits=32, valid=valid), exact=True).samples[0]

    np.testing.assert_array_equal(samples, values / 2**31)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_sample_format_is_read_as_libsndfile_reads_it(subtype: str, container: str, channels: int) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(7).uniform(-1, 1, (70_000, channels))
    soundfile.write(file, noise, RATE, format=container, subtype=subtype)

    audio = decode_audio(file.getvalue(), exact=True)

    expected, rate = soundfile.read(io.BytesIO(file.getvalue()), always_2d=True)
    assert audio.sample_rate == rate
    np.testing.assert_array_equal(audio.samples.T, expected)


def test_the_places_of_channels_are_those_of_the_mask() -> None:
    surround = wav(PCM.tobytes() * 6, channels=6, mask=0x3F)

    assert decode_audio(surround).places == ("FL", "FR", "FC", "LFE", "BL", "BR")
    assert decode_audio(wav(PCM.tobytes() * 6, channels=6)).places is None


def test_chunks_around_the_samples_are_no_sound() -> None:
    data = wav(
        before=chunk(b"LIST", b"INFOISFT\x03\0\0\0abc"), after=chunk(b"id3 ", b"x" * 101) + chunk(b"bext", b"y" * 40)
    )

    np.testing.assert_array_equal(decoded(data), PCM)


def test_a_tag_behind_the_samples_is_no_sound() -> None:
    np.testing.assert_array_equal(decoded(wav() + b"TAG" + b"x" * 125), PCM)


def test_no_samples_with_a_chunk_behind_them_are_no_samples() -> None:
    with pytest.raises(MediaEmpty):
        decode_audio(wav(b"", after=chunk(b"LIST", b"INFOISFT\x04\0\0\0abcd")))


def test_a_sound_in_several_data_chunks_is_one() -> None:
    np.testing.assert_array_equal(decoded(wav(after=chunk(b"data", PCM.tobytes()))), np.tile(PCM, 2))


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM"])
def test_compressed_sound_is_left_to_libav(subtype: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, media_files.tone(1.0, RATE)[0], RATE, format="WAV", subtype=subtype)

    assert decode_audio(file.getvalue()).seconds == pytest.approx(1.0, abs=0.1)


def test_pythons_own_wave_module_agrees() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(PCM.tobytes())

    np.testing.assert_array_equal(decoded(file.getvalue()), PCM)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=8),
    cut=st.one_of(st.none(), st.integers(0, 200)),
    copies=st.integers(1, 3),
    extensible=st.booleans(),
)
def test_headers_of_any_kind_give_samples_or_an_error_that_names_the_field(
    changes: list[tuple[int, int]], cut: int | None, copies: int, extensible: bool
) -> None:
    data = bytearray(wav(PCM[:500].tobytes(), valid=16 if extensible else None, after=chunk(b"LIST", b"INFO")))
    for at, value in changes:
        data[at] = value
    joined = bytes(data) * copies

    outcome = _outcome(joined if cut is None else joined[:cut])

    if isinstance(outcome, DecodedAudio):
        assert outcome.samples.shape[1] > 0
        assert np.isfinite(outcome.samples).all()
    else:
        assert outcome.field == "audio"


def _outcome(data: bytes) -> DecodedAudio | OmnifleetError:
    try:
        return decode_audio(data)
    except OmnifleetError as error:
        return error


@pytest.mark.parametrize("value", [1e300, -1e300, np.nan, np.inf])
def test_numbers_beyond_those_of_floats_are_refused(value: float) -> None:
    samples = np.full(100, 0.5)
    samples[50] = value

    with pytest.raises(MediaUnreadable, match="not numbers"):
        decode_audio(wav(samples.astype("<f8").tobytes(), bits=64, tag=3))
