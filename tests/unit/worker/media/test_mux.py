"""The new file plays: every picture as it was, the new sound from the first picture on."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from omnifleet_shared.errors import MediaEmpty, MediaTooLarge, MediaUnreadable, OmnifleetError
from omnifleet_worker.media.decode import decode_audio
from omnifleet_worker.media.limits import MediaLimits
from omnifleet_worker.media.mux import mux, why_not_muxed
from omnifleet_worker.media.video import decode_video
from support.data import media_files

RATE = 44_100
SOUND = (media_files.tone(1.0, RATE, 2).T * 32_767).astype(np.int16)


def packets(film: bytes) -> list[bytes]:
    """The encoded pictures."""
    with av.open(io.BytesIO(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def streams(film: bytes) -> list[str]:
    with av.open(io.BytesIO(film)) as container:
        return [stream.codec_context.name for stream in container.streams]


def numbers(film: bytes) -> list[int]:
    video = decode_video(film, frames_per_second=25, max_seconds=10)
    return [media_files.frame_number(frame) for frame in video.frames]


@pytest.mark.parametrize(
    ("container", "codec", "pixels", "result", "audio"),
    [
        ("mp4", "libx264", "yuv420p", "mp4", "aac"),
        ("mp4", "mpeg4", "yuv420p", "mp4", "aac"),
        ("mov", "libx264", "yuv420p", "mp4", "aac"),
        ("mov", "prores_ks", "yuv422p10le", "mov", "aac"),
        ("matroska", "libx264", "yuv420p", "mp4", "aac"),
        ("matroska", "libvpx-vp9", "yuv420p", "webm", "opus"),
        ("webm", "libvpx", "yuv420p", "webm", "opus"),
        ("webm", "libvpx-vp9", "yuv420p", "webm", "opus"),
    ],
)
def test_pictures_are_copied_and_the_sound_is_new(
    container: str, codec: str, pixels: str, result: str, audio: str
) -> None:
    film = media_files.video(1.0, 25, (64, 48), codec, container=container, pixels=pixels)

    muxed = mux(film, SOUND, RATE)

    assert muxed.format == result
    assert packets(muxed.data) == packets(film)
    assert streams(muxed.data) == [streams(film)[0], audio]
    assert decode_audio(muxed.data).seconds == pytest.approx(1.0, abs=0.05)
    assert muxed.seconds == pytest.approx(1.0, abs=0.05)
    assert numbers(muxed.data) == numbers(film)


def test_sound_that_the_video_has_is_left_out() -> None:
    film = media_files.video(1.0, audio_rate=48_000)

    muxed = mux(film, SOUND // 4, RATE)

    assert streams(muxed.data) == ["h264", "aac"]
    assert np.abs(decode_audio(muxed.data).samples[0]).max() < 0.2


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_the_sound_is_what_was_given(container: str) -> None:
    codec = "libvpx" if container == "webm" else "libx264"
    click = np.zeros((RATE, 2), np.int16)
    click[RATE // 2 : RATE // 2 + 2000, 0] = 20_000

    found = decode_audio(mux(media_files.video(1.0, codec=codec, container=container), click, RATE).data)

    left, right = np.abs(found.samples)
    assert np.flatnonzero(left > 0.3)[0] / found.sample_rate == pytest.approx(0.5, abs=0.005)
    assert right.max() < 0.1


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_the_sound_starts_with_the_first_picture(container: str) -> None:
    film = media_files.video(fps=10, times=[1 + k / 10 for k in range(10)], container=container)

    with av.open(io.BytesIO(mux(film, SOUND, RATE).data)) as muxed:
        first = next(muxed.decode(video=0))

    assert first.time == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_rotation_is_kept(rotation: media_files.Rotation, container: str) -> None:
    film = media_files.video(0.2, rotation=rotation, container=container)

    muxed = mux(film, SOUND, RATE)

    before, after = (decode_video(data, frames_per_second=25, max_seconds=1) for data in (film, muxed.data))
    assert np.array_equal(before.frames[0], after.frames[0])


def test_a_variable_frame_rate_is_kept() -> None:
    film = media_files.video(fps=25, times=[0.0, 0.04, 0.08, 1.0, 1.04, 2.0])

    assert numbers(mux(film, SOUND, RATE).data)[:50] == numbers(film)[:50]


@pytest.mark.parametrize(("pictures", "sound"), [(2.0, 0.5), (0.5, 2.0)])
def test_pictures_and_sound_keep_their_own_lengths(pictures: float, sound: float) -> None:
    film = media_files.video(pictures)

    muxed = mux(film, np.resize(SOUND, (round(sound * RATE), 2)), RATE)

    assert packets(muxed.data) == packets(film)
    assert decode_audio(muxed.data).seconds == pytest.approx(sound, abs=0.05)
    assert muxed.seconds == pytest.approx(2.0, abs=0.05)


def test_one_channel_is_enough() -> None:
    assert decode_audio(mux(media_files.video(0.2), SOUND[:, :1], RATE).data).samples.shape[0] == 1


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
def test_a_damaged_video_is_refused_or_copied_as_far_as_it_goes(container: str, codec: str, share: float) -> None:
    film = media_files.cut(media_files.video(1.0, codec=codec, container=container), share)

    try:
        muxed = mux(film, SOUND, RATE, field="film")
    except (MediaEmpty, MediaUnreadable) as error:
        assert error.field == "film"
    else:
        assert container == "webm"  # in whose clusters a cut does not show, short of decoding
        assert packets(muxed.data) == packets(film)


@pytest.mark.parametrize(
    ("data", "limits", "error"),
    [
        (media_files.wav(0.2), MediaLimits(), MediaUnreadable),
        (media_files.video(0.2), MediaLimits(max_bytes=100), MediaTooLarge),
        (media_files.video(0.2), MediaLimits(max_decode_seconds=0.0), MediaTooLarge),
    ],
    ids=["no pictures", "too many bytes", "too slow"],
)
def test_what_will_not_do_is_refused(data: bytes, limits: MediaLimits, error: type[OmnifleetError]) -> None:
    with pytest.raises(error):
        mux(data, SOUND, RATE, limits=limits)


@pytest.mark.parametrize("pcm", [SOUND.astype(np.float32), SOUND[:, 0], np.zeros((9, 3), np.int16)])
def test_other_samples_are_refused(pcm: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pcm must be"):
        mux(b"any", pcm, RATE)


def test_av1_is_copied() -> None:
    film = media_files.video(1.0, codec="libaom-av1")

    muxed = mux(film, SOUND, RATE)

    assert (muxed.format, packets(muxed.data)) == ("mp4", packets(film))


def test_a_film_that_was_trimmed_stays_trimmed() -> None:
    film = media_files.with_edit_list(media_files.video(2.4), [(0.6, 1.6)])

    muxed = mux(film, SOUND, RATE)

    assert muxed.seconds == pytest.approx(1.0, abs=0.05)
    assert numbers(muxed.data) == numbers(film)
    assert numbers(film)[0] == 15


PARTS = [(0.0, 0.6), (1.2, 2.0)]


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        (media_files.video(1.0), None),
        (media_files.video(1.0, codec="libvpx", container="webm"), None),
        (media_files.video(1.0, codec="prores_ks", container="mov", pixels="yuv422p10le"), None),
        (media_files.with_edit_list(media_files.video(2.0), PARTS), "a part in the middle"),
        (media_files.with_edit_list(media_files.video(2.4), PARTS[::-1]), "a part in the middle"),
        (media_files.video(1.0, codec="wmv2", container="asf"), "cannot be put into mp4"),
        (media_files.wav(1.0), "no video stream"),
    ],
    ids=["mp4", "webm", "prores", "two parts", "parts swapped", "wmv", "no pictures"],
)
def test_what_cannot_be_muxed_is_known_before(film: bytes, reason: str | None) -> None:
    found = why_not_muxed(film)

    if reason is None:
        assert found is None
        assert mux(film, SOUND, RATE).data
    else:
        assert found is not None and found.startswith("video: ") and reason in found
        with pytest.raises(MediaUnreadable) as refused:
            mux(film, SOUND, RATE)
        assert str(refused.value) == found
