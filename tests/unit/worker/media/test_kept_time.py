"""Every sound is where its file has it, as long as it is there, and files that were joined are heard to the end."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import av
import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import MediaTooLong, MediaUnreadable
from omnifleet_worker.media.decode import DecodedAudio, decode_audio
from omnifleet_worker.media.limits import MediaLimits
from support.data import media_files

RATE = 48_000
JOINABLE = ("wav", "flac", "mp3", "mp3-without-length", "aac", "opus", "ogg")


def loud_seconds(audio: DecodedAudio) -> list[tuple[float, float]]:
    """Where there is sound, as (start, end) to a hundredth of a second."""
    size = audio.sample_rate // 100
    mono = np.abs(audio.samples).max(axis=0)
    loud = mono[: len(mono) // size * size].reshape(-1, size).max(axis=1) > 0.05
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    return [(edges[k] / 100, edges[k + 1] / 100) for k in range(0, len(edges), 2)]


def with_packets(source: bytes, container: str, keep: Callable[[float], bool], shift: float = 0.0) -> bytes:
    """The file's packets of sound copied to another, those alone that `keep` takes by their time, and moved."""
    target = io.BytesIO()
    with av.open(io.BytesIO(source)) as read, av.open(target, "w", format=container) as out:
        streams = {one.index: out.add_stream_from_template(one, opaque=True) for one in read.streams}
        for packet in read.demux():
            if not packet.size or packet.dts is None:
                continue
            is_sound = packet.stream.type == "audio"
            if is_sound and not keep(float(packet.pts * packet.time_base)):
                continue
            move = round(shift / packet.time_base) if is_sound else 0
            packet.pts, packet.dts = packet.pts + move, packet.dts + move
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    return target.getvalue()


class TestGaps:
    @pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "mpegts", "flv"])
    def test_a_gap_of_two_seconds_is_two_seconds_of_silence(self, container: str) -> None:
        film = media_files.video(6.0, 10, audio_rate=44_100)

        audio = decode_audio(with_packets(film, container, lambda time: not 2 <= time < 4))

        assert audio.seconds == pytest.approx(6.0, abs=0.05)
        (first, second) = loud_seconds(audio)
        assert first == pytest.approx((0, 2), abs=0.06)
        assert second == pytest.approx((4, 6), abs=0.06)

    @pytest.mark.parametrize("container", ["matroska", "mpegts", "mp4"])
    def test_what_a_film_shows_before_its_sound_begins_is_silence(self, container: str) -> None:
        film = media_files.video(3.0, 10, audio_rate=44_100)

        audio = decode_audio(with_packets(film, container, lambda _: True, shift=0.777))

        assert loud_seconds(audio)[0][0] == pytest.approx(0.777, abs=0.04)

    def test_a_sound_alone_begins_with_itself(self) -> None:
        sound = media_files.encode("webm", media_files.tone(1.0, RATE), RATE)

        audio = decode_audio(with_packets(sound, "matroska", lambda _: True, shift=5.0))

        assert audio.seconds == pytest.approx(1.0, abs=0.05)

    def test_a_gap_that_would_be_too_long_is_refused_before_it_is_filled(self) -> None:
        film = media_files.video(1.0, 10, audio_rate=44_100)
        shifted = with_packets(film, "matroska", lambda _: True, shift=90_000)

        with pytest.raises(MediaTooLong):
            decode_audio(shifted)

    def test_rounded_timestamps_are_no_gaps(self) -> None:
        sound = media_files.encode("webm", media_files.tone(20.0, RATE), RATE)

        audio = decode_audio(sound)

        assert audio.samples.shape[1] == 20 * RATE
        assert np.abs(audio.samples[0]).reshape(-1, 480).max(axis=1).min() > 0.3


class TestLimits:
    @pytest.mark.parametrize(
        "format", ["wav", "flac", "opus", "ogg", "mp3", "mp3-without-length", "m4a", "webm", "mkv"]
    )
    @pytest.mark.parametrize("rate", [RATE, 8_000])
    def test_a_sound_at_the_limit_is_taken(self, format: str, rate: int) -> None:
        sound = media_files.encode(format, media_files.tone(3.0, rate), rate)

        assert decode_audio(sound, limits=MediaLimits(max_seconds=3.0)).seconds == pytest.approx(3.0, abs=0.3)

    @pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
    @pytest.mark.parametrize("samples", [1, 100, 128, 500, 1_000, 1_024, 4_096, 7_000, 15_999, 44_101, 100_000])
    def test_vorbis_is_as_long_as_it_was_and_all_of_it_is_heard(self, samples: int, rate: int) -> None:
        sound = np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)
        file = io.BytesIO()
        soundfile.write(file, sound, rate, format="OGG", subtype="VORBIS")

        audio = decode_audio(file.getvalue())

        wanted, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
        assert audio.samples.shape == (1, samples)
        np.testing.assert_allclose(audio.samples[0], wanted, atol=1e-5)

    @pytest.mark.parametrize("format", ["wav", "flac", "opus", "ogg", "m4a", "webm", "mkv"])
    def test_its_length_is_exact(self, format: str) -> None:
        sound = media_files.encode(format, media_files.tone(3.0, RATE), RATE)

        assert decode_audio(sound).samples.shape[1] == 3 * RATE

    @pytest.mark.parametrize(
        "format", ["wav", "flac", "opus", "ogg", "mp3", "mp3-without-length", "m4a", "webm", "mkv"]
    )
    def test_one_beyond_is_refused(self, format: str) -> None:
        sound = media_files.encode(format, media_files.tone(3.2, RATE), RATE)

        with pytest.raises(MediaTooLong):
            decode_audio(sound, limits=MediaLimits(max_seconds=3.0))


class TestJoined:
    @pytest.mark.parametrize("format", JOINABLE)
    def test_joined_files_are_heard_to_the_end(self, format: str) -> None:
        sound = media_files.encode(format, media_files.tone(1.0, RATE), RATE)

        assert decode_audio(sound * 3).seconds == pytest.approx(3.0, abs=0.2)

    @pytest.mark.parametrize("format", ["m4a", "m4a-faststart", "m4a-fragmented", "webm", "mkv"])
    def test_what_would_not_be_read_to_the_end_is_refused(self, format: str) -> None:
        sound = media_files.encode(format, media_files.tone(1.0, RATE), RATE)

        with pytest.raises(MediaUnreadable, match="2 files are joined"):
            decode_audio(sound * 2)

    def test_joined_wav_files_keep_every_sample(self) -> None:
        parts = [media_files.tone(0.3, RATE, 2, hertz=hertz) for hertz in (300, 500)]

        audio = decode_audio(b"".join(media_files.encode("wav", part, RATE) for part in parts))

        np.testing.assert_allclose(audio.samples, np.concatenate(parts, axis=1), atol=2 / 32_768)

    @pytest.mark.parametrize("other", [media_files.wav(0.2, 8_000), media_files.wav(0.2, RATE, 2)])
    def test_joined_wav_files_of_other_forms_are_refused(self, other: bytes) -> None:
        with pytest.raises(MediaUnreadable, match="2 wav files are joined"):
            decode_audio(media_files.wav(0.2, RATE) + other)


class TestMp3Tags:
    def test_a_tag_that_counts_too_many_frames_is_not_believed_where_its_bytes_are_there(self) -> None:
        sound = bytearray(media_files.encode("mp3", media_files.tone(3.0, 44_100), 44_100))
        at = _tag(sound) + 8
        (frames,) = struct.unpack(">I", sound[at : at + 4])
        sound[at : at + 4] = struct.pack(">I", frames * 100)

        audio = decode_audio(bytes(sound), limits=MediaLimits(max_seconds=30.0))

        assert audio.seconds == pytest.approx(3.0, abs=0.06)

    def test_a_file_that_was_cut_is_refused_by_its_tag(self) -> None:
        sound = media_files.encode("mp3", media_files.tone(3.0, 44_100), 44_100)

        with pytest.raises(MediaUnreadable, match="cut off"):
            decode_audio(media_files.cut(sound, 0.7))


def _tag(sound: bytearray) -> int:
    return max(sound.find(b"Xing"), sound.find(b"Info"))
