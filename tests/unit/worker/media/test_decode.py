"""Audio of every kind comes out as samples, anything else as a typed error."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import MediaEmpty, MediaTooLarge, MediaTooLong, MediaUnreadable, OmnifleetError
from omnifleet_worker.media.decode import DecodedAudio, decode_audio
from omnifleet_worker.media.limits import MediaLimits
from support.data import media_files

LOSSLESS = ("wav", "wav-24", "wav-32", "wav-float", "wav-double", "flac", "flac-24", "mov", "mkv")
LOSSY = ("wav-u8", "ogg", "mp3", "mp3-without-length", "aac", "m4a", "m4a-faststart", "m4a-fragmented", "opus", "webm")
DECLARING = ("wav", "flac", "ogg", "mp3", "m4a", "m4a-faststart", "m4a-fragmented", "opus", "webm", "mkv", "mov")


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (96_000, 8)])
def test_lossless_files_keep_rate_channels_and_samples(format: str, rate: int, channels: int) -> None:
    samples = media_files.tone(0.2, rate, channels)

    audio = decode_audio(media_files.encode(format, samples, rate))

    assert audio.sample_rate == rate
    assert audio.samples.dtype == np.float32
    np.testing.assert_allclose(audio.samples, samples, atol=2 / 32_768)


@pytest.mark.parametrize("format", LOSSY)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 2)])
def test_lossy_files_keep_channels_length_and_tone(format: str, rate: int, channels: int) -> None:
    audio = decode_audio(media_files.encode(format, media_files.tone(1.0, rate, channels), rate))

    assert audio.sample_rate in (rate, 48_000)  # opus is always 48 kHz
    assert audio.samples.shape[0] == channels
    assert audio.seconds == pytest.approx(1.0, abs=0.3)
    assert [_loudest_hertz(audio, k) for k in range(channels)] == pytest.approx([440, 880][:channels], abs=5)


@pytest.mark.parametrize("format", ["wav", "flac", "opus", "webm"])
def test_eight_channels_keep_their_order(format: str) -> None:
    audio = decode_audio(media_files.encode(format, media_files.tone(0.5, 48_000, 8, hertz=200), 48_000))

    assert [_loudest_hertz(audio, k) for k in range(8)] == pytest.approx([200 * (k + 1) for k in range(8)], abs=5)


@pytest.mark.parametrize("format", ["aiff", "w64", "caf", "avi-pcm", "flv", "ts", "avi", "amr", "3gp"])
def test_other_formats_that_are_sent_are_read(format: str) -> None:
    rate = 8_000 if format in ("amr", "3gp") else 44_100

    audio = decode_audio(media_files.encode(format, media_files.tone(1.0, rate), rate))

    assert (audio.sample_rate, len(audio.samples)) == (rate, 1)
    assert audio.seconds == pytest.approx(1.0, abs=0.06)
    assert _loudest_hertz(audio, 0) == pytest.approx(440, abs=5)
    assert audio.lossy == (format not in ("aiff", "w64", "caf", "avi-pcm"))


@pytest.mark.parametrize("format", ["aiff", "w64", "caf", "flv", "avi", "avi-pcm", "3gp"])
def test_they_are_refused_where_they_were_cut(format: str) -> None:
    rate = 8_000 if format == "3gp" else 44_100
    data = media_files.encode(format, media_files.tone(4.0, rate), rate)

    with pytest.raises(MediaUnreadable):
        decode_audio(media_files.cut(data, 0.5))


@pytest.mark.parametrize(("codec", "container"), [("wmv2", "asf"), ("mpeg4", "avi"), ("libx264", "mpegts")])
def test_the_sound_of_other_films_is_heard(codec: str, container: str) -> None:
    film = media_files.video(1.0, codec=codec, container=container, audio_rate=44_100)

    assert decode_audio(film).seconds == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"MThd" + bytes(100), "MIDI"),
        (b"#EXTM3U\nhttp://x/a.mp3\n", "a playlist"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 50, "a PDF document"),
        (b"<!doctype html><p>not found", "a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        (b"wvpk" + bytes(100), "WavPack"),
    ],
)
def test_what_is_not_read_is_named_with_the_remedy(data: bytes, name: str) -> None:
    with pytest.raises(MediaUnreadable, match=f"the file is {name}") as refused:
        decode_audio(data)

    assert "ffmpeg -i FILE sound.flac" in str(refused.value.remedy)


def test_the_sound_track_of_a_film_is_taken() -> None:
    film = media_files.video(1.0, audio_rate=44_100)

    assert decode_audio(film).seconds == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF], ids=["zero", "all-ones"])
def test_a_wav_written_to_a_pipe_has_no_length_and_is_taken_whole(size: int) -> None:
    data = bytearray(media_files.wav(0.5, 8_000))
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")

    assert decode_audio(bytes(data)).seconds == 0.5


def test_a_single_damaged_frame_of_many_is_skipped() -> None:
    data = bytearray(media_files.encode("aac", media_files.tone(5.0, 44_100), 44_100))
    third_frame = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xf1"][3]
    data[third_frame + 7 : third_frame + 60] = b"\xff" * 53

    assert decode_audio(bytes(data)).seconds == pytest.approx(5.0, abs=0.1)


def test_no_bytes_are_refused() -> None:
    with pytest.raises(MediaEmpty, match=r"^voice: the file holds no bytes\. Send .*\.$"):
        decode_audio(b"", field="voice")


def test_a_file_without_samples_is_refused() -> None:
    with pytest.raises(MediaEmpty, match=r"^audio: the file holds no samples\. Send a file with sound\.$"):
        decode_audio(media_files.wav(0.0))


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is a text file\n" * 500,
        b"x",
        bytes(100_000),
        b"\xff" * 100_000,
    ],
    ids=["text", "one-byte", "zeros", "ones"],
)
def test_what_is_not_audio_is_refused(data: bytes) -> None:
    with pytest.raises(MediaUnreadable, match="no audio or video that can be read"):
        decode_audio(data)


@pytest.mark.parametrize("format", DECLARING)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_file_cut_in_the_middle_is_refused(format: str, share: float) -> None:
    data = media_files.encode(format, media_files.tone(2.0, 48_000, 2), 48_000)

    with pytest.raises(MediaUnreadable):
        decode_audio(media_files.cut(data, share))


@pytest.mark.parametrize("format", [one for one in media_files.FORMATS if one != "amr"])
def test_a_file_cut_in_its_header_is_refused(format: str) -> None:
    rate = {"flv": 44_100, "3gp": 8_000}.get(format, 48_000)
    data = media_files.encode(format, media_files.tone(1.0, rate), rate)

    with pytest.raises(MediaUnreadable):
        decode_audio(data[:20])


def test_a_cut_wav_tells_bytes_declared_and_found() -> None:
    with pytest.raises(MediaUnreadable) as refused:
        decode_audio(media_files.cut(media_files.wav(1.0, 8_000), 0.5))

    assert refused.value.details == {"declared_bytes": 16_044, "found_bytes": 8_022}


def test_a_cut_flac_tells_seconds_declared_and_found() -> None:
    data = media_files.encode("flac", media_files.tone(2.0, 44_100), 44_100)

    with pytest.raises(MediaUnreadable, match=r"declares 2\.00 seconds") as refused:
        decode_audio(media_files.cut(data, 0.5))

    assert refused.value.details["declared_seconds"] == 2.0
    assert 0 < refused.value.details["found_seconds"] < 1.5


def test_a_film_without_sound_is_refused() -> None:
    with pytest.raises(MediaUnreadable, match="no audio stream"):
        decode_audio(media_files.video(0.2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", ["wav-float", "wav-double"])
def test_samples_that_are_not_numbers_are_refused(value: float, format: str) -> None:
    samples = media_files.tone(0.1, 8_000)
    samples[0, 400] = value

    with pytest.raises(MediaUnreadable, match="not numbers"):
        decode_audio(media_files.encode(format, samples, 8_000))


def test_an_encoding_that_is_not_on_the_list_is_refused() -> None:
    target = io.BytesIO()
    soundfile.write(target, media_files.tone(0.2, 8_000)[0], 8_000, format="WAV", subtype="GSM610")

    with pytest.raises(MediaUnreadable, match="encoded as gsm"):
        decode_audio(target.getvalue())


def test_a_rate_that_changes_on_the_way_is_refused() -> None:
    parts = [media_files.encode("aac", media_files.tone(0.5, rate), rate) for rate in (44_100, 22_050)]

    with pytest.raises(MediaUnreadable, match="change on the way"):
        decode_audio(b"".join(parts))


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (MediaLimits(max_bytes=1000), MediaTooLarge),
        (MediaLimits(max_seconds=0.9), MediaTooLong),
        (MediaLimits(max_channels=1), MediaTooLarge),
        (MediaLimits(max_sample_rate=32_000), MediaTooLarge),
        (MediaLimits(min_sample_rate=50_000), MediaUnreadable),
        (MediaLimits(max_decoded_bytes=100_000), MediaTooLarge),
        (MediaLimits(max_decode_seconds=0.0), MediaTooLarge),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_limit_is_enforced(limits: MediaLimits, error: type[OmnifleetError]) -> None:
    data = media_files.wav(1.0, 44_100, channels=2)
    assert decode_audio(data).seconds == 1.0

    with pytest.raises(error):
        decode_audio(data, limits=limits)


@pytest.mark.parametrize("allowed", [0, 1])
def test_more_streams_than_allowed_are_refused(allowed: int) -> None:
    film = media_files.video(0.2, audio_rate=44_100)

    with pytest.raises(MediaTooLarge, match="streams"):
        decode_audio(film, limits=MediaLimits(max_streams=allowed))


def test_three_hours_are_refused_by_their_header_without_decoding() -> None:
    rate, seconds = 8_000, 3 * 3600
    data = bytearray(media_files.encode("flac", media_files.tone(0.1, rate), rate))
    data[21] &= 0xF0  # the total number of samples: 36 bits of STREAMINFO
    data[22:26] = (rate * seconds).to_bytes(4, "big")

    with pytest.raises(MediaTooLong, match=r"10800\.0 seconds") as refused:
        decode_audio(bytes(data))

    assert refused.value.details == {"seconds": 10_800.0, "max_seconds": 1800.0}


def test_a_long_file_that_declares_nothing_is_refused_on_the_way_in_little_memory() -> None:
    data = media_files.encode("aac", media_files.tone(60.0, 8_000), 8_000)
    tracemalloc.start()
    try:
        with pytest.raises(MediaTooLong):
            decode_audio(data, limits=MediaLimits(max_seconds=2.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000 < 60 * 8_000 * 4


QUIET, LOUD = media_files.tone(0.5, 8_000, level=0.1), media_files.tone(0.5, 8_000, level=0.4)


@pytest.mark.parametrize(
    ("default", "asked", "heard"),
    [(None, None, 0.1), (0, None, 0.1), (1, None, 0.4), (0, 1, 0.4), (1, 0, 0.1)],
)
def test_the_default_track_is_heard_unless_another_is_asked_for(
    default: int | None, asked: int | None, heard: float
) -> None:
    film = media_files.tracks(QUIET, LOUD, rate=8_000, default=default)

    assert np.abs(decode_audio(film, track=asked).samples).max() == pytest.approx(heard, abs=0.01)


def test_a_track_that_is_not_there_is_refused() -> None:
    film = media_files.tracks(QUIET, LOUD, rate=8_000)

    with pytest.raises(MediaUnreadable, match="2 sound tracks") as refused:
        decode_audio(film, track=2)

    assert (refused.value.field, refused.value.remedy) == ("audio_track", "Use 0 to 1, or leave it out")


def _loudest_hertz(audio: DecodedAudio, channel: int) -> float:
    samples = audio.samples[channel, : audio.sample_rate // 2]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * audio.sample_rate / len(samples))
