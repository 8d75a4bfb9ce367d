"""A crash of a decoder or an encoder costs one file, and what comes back is what the function itself gives."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import InvalidJob, MediaError, MediaTooLarge, MediaTooLong, MediaUnreadable, OutOfMemory
from omnifleet_worker.media import encode, mux, video
from omnifleet_worker.media.decode import decode_audio
from omnifleet_worker.media.encode import AudioFormat
from omnifleet_worker.media.isolation import channel, processes
from omnifleet_worker.media.isolation.processes import MediaProcesses
from omnifleet_worker.media.limits import MediaLimits
from support.data import media_files

RATE = 44_100
SOUND = media_files.tone(0.5, RATE, 2)
PCM = (SOUND.T * 32_767).astype(np.int16)


@pytest.fixture(scope="module")
def media() -> Iterator[MediaProcesses]:
    media = MediaProcesses()
    yield media
    media.close()


@pytest.fixture(scope="module")
def crashing() -> Iterator[MediaProcesses]:
    """Whose decoder does what the file says."""
    media = MediaProcesses(program="support.data.crashing_media")
    yield media
    media.close()


def process_id(crashing: MediaProcesses) -> int:
    return crashing.decode_audio(b"well").sample_rate


class TestTheSame:
    @pytest.mark.parametrize("format", ["wav", "wav-24", "flac", "mp3", "opus", "m4a"])
    @pytest.mark.parametrize("options", [{}, {"exact": True}, {"mono_rate": 16_000}], ids=str)
    def test_sound(self, media: MediaProcesses, format: str, options: dict[str, int]) -> None:
        data = media_files.encode(format, media_files.tone(0.5, 48_000, 2), 48_000)

        apart, here = media.decode_audio(data, **options), decode_audio(data, **options)  # type: ignore[arg-type]

        np.testing.assert_array_equal(apart.samples, here.samples)
        assert apart.samples.dtype == here.samples.dtype
        assert apart.samples.flags.writeable
        assert (apart.sample_rate, apart.places, apart.lossy) == (here.sample_rate, here.places, here.lossy)

    def test_another_track(self, media: MediaProcesses) -> None:
        film = media_files.tracks(SOUND, SOUND / 4, rate=RATE)

        assert np.abs(media.decode_audio(film, track=1).samples).max() == pytest.approx(0.125, abs=0.01)

    def test_pictures(self, media: MediaProcesses) -> None:
        film = media_files.video(0.5)
        wanted = {"frames_per_second": 10.0, "max_seconds": 5.0, "size": (32, 32)}

        apart, here = media.decode_video(film, **wanted), video.decode_video(film, **wanted)  # type: ignore[arg-type]

        np.testing.assert_array_equal(apart.frames, here.frames)
        assert (apart.frames_per_second, apart.seconds) == (here.frames_per_second, here.seconds)

    def test_films(self, media: MediaProcesses) -> None:
        film, parts = media_files.video(0.5), [(0.0, 0.2), (0.6, 1.0)]
        hidden = media_files.with_edit_list(media_files.video(1.4), parts)

        muxed = media.mux(film, PCM, RATE)

        assert (muxed.format, muxed.seconds) == ("mp4", mux.mux(film, PCM, RATE).seconds)
        assert decode_audio(muxed.data).seconds == pytest.approx(0.5, abs=0.05)
        assert media.why_not_muxed(film) is None
        assert "a part in the middle" in str(media.why_not_muxed(hidden))

    @pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg"])
    def test_files(self, media: MediaProcesses, format: AudioFormat) -> None:
        if format == "ogg":  # whose serial number is drawn anew for each file
            assert decode_audio(media.encode_audio(PCM, RATE, format)).seconds == pytest.approx(0.5, abs=0.005)
            return
        samples = SOUND.astype(np.float64)
        assert media.encode_audio(PCM, RATE, format) == encode.encode_audio(PCM, RATE, format)
        expected = encode.encode_samples(samples, RATE, format, "PCM_24")
        assert media.encode_samples(samples, RATE, format, "PCM_24") == expected

    @pytest.mark.parametrize(
        ("data", "limits", "error"),
        [
            (b"no sound" * 100, MediaLimits(), MediaUnreadable),
            (media_files.encode("flac", SOUND, RATE), MediaLimits(max_seconds=0.1), MediaTooLong),
            (media_files.encode("flac", SOUND, RATE), MediaLimits(max_decode_seconds=0.0), MediaTooLarge),
        ],
    )
    def test_refusals(self, media: MediaProcesses, data: bytes, limits: MediaLimits, error: type[MediaError]) -> None:
        with pytest.raises(error) as apart:
            media.decode_audio(data, field="ref", limits=limits)
        with pytest.raises(error) as here:
            decode_audio(data, field="ref", limits=limits)

        assert apart.value.args == here.value.args

    def test_a_format_that_cannot_hold_the_rate(self, media: MediaProcesses) -> None:
        with pytest.raises(InvalidJob, match="ogg cannot hold"):
            media.encode_audio(PCM, 384_000, "ogg")


class TestCrashes:
    def test_a_process_is_kept_for_the_next_file(self, crashing: MediaProcesses) -> None:
        assert len({process_id(crashing) for _ in range(5)}) == 1

    def test_a_file_that_ends_its_process_twice_is_refused_and_the_next_one_is_decoded(
        self, crashing: MediaProcesses
    ) -> None:
        before = process_id(crashing)

        with pytest.raises(MediaUnreadable, match=r"^ref: reading it ends the decoder \(SIGSEGV\)\. Export") as caught:
            crashing.decode_audio(b"segfault", field="ref")

        assert caught.value.field == "ref"
        assert process_id(crashing) != before

    def test_a_file_that_ends_it_once_is_decoded_by_the_next(self, crashing: MediaProcesses, tmp_path: Path) -> None:
        marker = tmp_path / "crashed"

        audio = crashing.decode_audio(f"once {marker}".encode())

        assert marker.exists()
        assert audio.samples.shape == (1, 1)

    def test_an_exit_is_a_crash(self, crashing: MediaProcesses) -> None:
        with pytest.raises(MediaUnreadable, match="exit code 3"):
            crashing.decode_audio(b"exit")

    def test_what_the_system_ends_for_want_of_memory_may_be_tried_again(self, crashing: MediaProcesses) -> None:
        with pytest.raises(OutOfMemory) as caught:
            crashing.decode_audio(b"killed", field="ref")

        assert caught.value.field == "ref"

    def test_more_memory_than_is_allowed_is_not_given(self, crashing: MediaProcesses) -> None:
        with pytest.raises(MediaTooLarge, match="more memory than is allowed"):
            crashing.decode_audio(b"memory")

    def test_a_process_that_hangs_is_ended(self, crashing: MediaProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "_SPARE_SECONDS", 0.2)
        before = process_id(crashing)

        with pytest.raises(MediaTooLarge, match=r"more than 0\.1 seconds"):
            crashing.decode_audio(b"hang", limits=MediaLimits(max_decode_seconds=0.1))

        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
        monkeypatch.undo()
        assert process_id(crashing) != before

    def test_a_mistake_of_ours_is_told_with_its_place(self, crashing: MediaProcesses) -> None:
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            crashing.decode_audio(b"bug")

    def test_one_that_died_between_two_files_is_replaced(self, crashing: MediaProcesses) -> None:
        before = process_id(crashing)
        os.kill(before, signal.SIGKILL)
        while _is_running(before):
            time.sleep(0.01)

        assert process_id(crashing) != before

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_to_the_group_are_left_to_the_worker(self, crashing: MediaProcesses, number: int) -> None:
        before = process_id(crashing)

        os.kill(before, number)

        assert process_id(crashing) == before

    def test_crashes_beside_other_files_cost_those_nothing(self, crashing: MediaProcesses) -> None:
        with ThreadPoolExecutor(6) as threads:
            outcomes = [threads.submit(crashing.decode_audio, word) for word in [b"well", b"segfault", b"exit"] * 4]

        assert [type(outcome.exception()) for outcome in outcomes] == [type(None), MediaUnreadable, MediaUnreadable] * 4

    def test_no_more_than_allowed_run_at_once(self) -> None:
        media = MediaProcesses(most=2, program="support.data.crashing_media")
        with ThreadPoolExecutor(6) as threads:
            ids = set(threads.map(lambda _: process_id(media), range(12)))
        media.close()

        assert len(ids) <= 2

    def test_closed_they_are_gone(self) -> None:
        media = MediaProcesses()
        media.start()
        (process,) = media._idle
        media.close()

        assert not process.is_alive


def _is_running(process_id: int) -> bool:
    return "State:\tZ" not in Path(f"/proc/{process_id}/status").read_text()


class TestChannel:
    def test_a_side_that_is_gone_is_told(self) -> None:
        ours, theirs = channel.pair()
        theirs.close()
        with ours, pytest.raises(channel.ChannelClosed):
            channel.receive(ours)
        ours, theirs = channel.pair()
        theirs.close()
        with ours, pytest.raises(channel.ChannelClosed):
            channel.send(ours, {"call": "x"}, [b"data"])

    @pytest.mark.parametrize("buffer", [b"", b"x" * 100_000, np.zeros((2, 0), np.float32), SOUND, PCM[:, :1]])
    def test_everything_arrives_as_it_was(self, buffer: channel.Buffer) -> None:
        ours, theirs = channel.pair()
        with ours, theirs:
            threading.Thread(target=channel.send, args=(ours, {"field": "audio"}, [buffer])).start()
            header, (found,) = channel.receive(theirs)

        assert header == {"field": "audio"}
        assert type(found) is type(buffer)
        np.testing.assert_array_equal(found, buffer)

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(message=st.one_of(st.binary(max_size=100), st.just(b'{"header": {}, "buffers": [null]}')))
    def test_what_is_no_message_ends_the_channel(self, message: bytes) -> None:
        ours, theirs = channel.pair()
        with ours, theirs:
            ours.send(message or b"x")
            with pytest.raises(channel.ChannelClosed):
                channel.receive(theirs)


def test_nothing_of_a_file_stays_behind(media: MediaProcesses) -> None:
    data = media_files.encode("flac", SOUND, RATE)
    media.decode_audio(data)
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(20):
        media.decode_audio(data)

    assert len(list(Path("/proc/self/fd").iterdir())) <= before
