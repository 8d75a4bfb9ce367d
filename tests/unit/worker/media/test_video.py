"""Frames come out at the pace asked for, upright, whatever the source's own pace; bad files as typed errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import MediaEmpty, MediaTooLarge, MediaTooLong, MediaUnreadable, OmnifleetError
from omnifleet_worker.media.limits import MediaLimits
from omnifleet_worker.media.video import DecodedVideo, decode_video
from support.data import media_files


def numbers(video: DecodedVideo) -> list[int]:
    return [media_files.frame_number(frame) for frame in video.frames]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mp4", "mpeg4"),
        ("mov", "libx264"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("matroska", "libx264"),
    ],
)
def test_each_container_gives_every_frame_at_its_own_pace(container: str, codec: str) -> None:
    film = media_files.video(1.0, 25, (64, 48), codec, container=container)

    video = decode_video(film, frames_per_second=25, max_seconds=10)

    assert video.frames.shape == (25, 48, 64, 3)
    assert video.frames.dtype == np.uint8
    assert video.frames_per_second == 25
    assert video.seconds == pytest.approx(1.0, abs=0.05)
    assert numbers(video) == pytest.approx(range(25), abs=1)


@pytest.mark.parametrize(("source", "pace"), [(30, 25), (25, 5), (30, 5), (10, 25), (23.976, 25), (50, 25)])
def test_frames_are_chosen_by_their_time(source: float, pace: float) -> None:
    film = media_files.video(1.2, source)

    video = decode_video(film, frames_per_second=pace, max_seconds=10)

    assert len(video.frames) == pytest.approx(1.2 * pace, abs=1)
    shown = [int(k / pace * source + 0.01) for k in range(len(video.frames))]
    assert numbers(video) == pytest.approx(shown, abs=1)


def test_a_variable_frame_rate_is_followed() -> None:
    film = media_files.video(fps=25, times=[0.0, 0.04, 0.08, 1.0, 1.04, 2.0])

    video = decode_video(film, frames_per_second=5, max_seconds=10)

    assert numbers(video)[:11] == pytest.approx([0, 2, 2, 2, 2, 3, 4, 4, 4, 4, 5], abs=0.5)
    assert set(numbers(video)[11:]) <= {5}  # for as long as the muxer says that the last frame lasts


def test_only_the_beginning_that_is_wanted_is_decoded() -> None:
    film = media_files.video(3.0, 25)

    video = decode_video(film, frames_per_second=5, max_seconds=1.0)

    assert numbers(video) == pytest.approx([0, 5, 10, 15, 20], abs=1)
    assert video.seconds == 1.0


def test_a_single_frame_is_enough() -> None:
    video = decode_video(media_files.video(0.04, 25), frames_per_second=5, max_seconds=10)

    assert len(video.frames) == 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_rotation_is_applied(rotation: media_files.Rotation, container: str) -> None:
    film = media_files.video(0.2, 25, (64, 48), rotation=rotation, container=container)

    frame = decode_video(film, frames_per_second=25, max_seconds=1).frames[0]

    assert frame.shape == ((64, 48, 3) if rotation in (90, 270) else (48, 64, 3))
    red_band = np.rot90(frame, -rotation // 90)[:8].reshape(-1, 3).mean(axis=0)
    assert red_band[0] > 150 > 100 > red_band[1:].max()


@pytest.mark.parametrize(
    ("matrix", "red"),
    [
        ((1, 0, 0, 1), "top"),
        ((1, 0, 0, -1), "bottom"),  # upside down, but not turned
        ((-1, 0, 0, 1), "top"),  # a front camera's mirror
        ((-1, 0, 0, -1), "bottom"),
        ((0, 1, 1, 0), "left"),  # rows become columns
        ((0, 1, -1, 0), "right"),
        ((0, -1, 1, 0), "left"),
        ((0, -1, -1, 0), "right"),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_pictures_are_mirrored_as_players_show_them(
    matrix: tuple[int, int, int, int], red: str, container: str
) -> None:
    film = media_files.with_matrix(media_files.video(0.2, 25, (64, 48), container=container), *matrix)

    frame = decode_video(film, frames_per_second=25, max_seconds=1).frames[0]

    assert frame.shape == ((64, 48, 3) if red in ("left", "right") else (48, 64, 3))
    edges = {"top": frame[:8], "bottom": frame[-8:], "left": frame[:, :8], "right": frame[:, -8:]}
    means = {side: edge.reshape(-1, 3).mean(axis=0) for side, edge in edges.items()}
    assert [side for side, mean in means.items() if mean[0] > 150 and mean[1:].max() < 60] == [red]


def test_left_and_right_are_swapped_by_a_mirror() -> None:
    film = media_files.video(0.2, 25, (64, 48), sideways=True)

    plain, mirrored = (
        decode_video(data, frames_per_second=25, max_seconds=1).frames[0]
        for data in (film, media_files.with_matrix(film, -1, 0, 0, 1))
    )

    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    assert not np.array_equal(mirrored, plain)


def test_the_picture_that_is_turned_shows_what_the_matrix_asks() -> None:
    film = media_files.video(0.2, 25, (64, 48), sideways=True)
    plain = decode_video(film, frames_per_second=25, max_seconds=1).frames[0]

    for (a, b, c, d), expected in {
        (0, 1, -1, 0): np.rot90(plain, -1),  # a quarter turn clockwise: x goes down
        (0, -1, 1, 0): np.rot90(plain),
        (0, 1, 1, 0): plain.transpose(1, 0, 2),
        (0, -1, -1, 0): np.rot90(plain.transpose(1, 0, 2), 2),
    }.items():
        turned = decode_video(media_files.with_matrix(film, a, b, c, d), frames_per_second=25, max_seconds=1)
        np.testing.assert_array_equal(turned.frames[0], expected)


def test_a_film_at_the_limit_is_taken_and_one_beyond_refused_even_where_it_does_not_tell_its_length() -> None:
    live = media_files.video(2.0, 25, codec="libvpx", container="webm", live=True)

    watched = decode_video(live, frames_per_second=2, max_seconds=2.0, limits=MediaLimits(max_seconds=2.0))

    assert len(watched.frames) == 4
    with pytest.raises(MediaTooLong):
        decode_video(live, frames_per_second=2, max_seconds=1.5, limits=MediaLimits(max_seconds=1.5))


@pytest.mark.parametrize(
    ("size", "shape"), [((640, 360), (72, 128, 3)), ((360, 640), (128, 72, 3)), ((66, 34), (34, 66, 3))]
)
def test_large_frames_are_scaled_down(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    film = media_files.video(0.1, 25, size)

    video = decode_video(film, frames_per_second=25, max_seconds=1, limits=MediaLimits(max_frame_side=128))

    assert video.frames.shape[1:] == shape


def test_the_default_keeps_the_long_side_within_1280() -> None:
    video = decode_video(media_files.video(0.04, 25, (1920, 1080)), frames_per_second=25, max_seconds=1)

    assert video.frames.shape == (1, 720, 1280, 3)


def test_no_bytes_are_refused() -> None:
    with pytest.raises(MediaEmpty, match=r"^clip: the file holds no bytes"):
        decode_video(b"", frames_per_second=5, max_seconds=10, field="clip")


@pytest.mark.parametrize(
    "data",
    [b"a text file\n" * 100, media_files.wav(0.5), media_files.encode("m4a", media_files.tone(0.5, 44_100), 44_100)],
    ids=["text", "wav", "m4a"],
)
def test_what_is_not_video_is_refused(data: bytes) -> None:
    with pytest.raises(MediaUnreadable):
        decode_video(data, frames_per_second=5, max_seconds=10)


@pytest.mark.parametrize(
    ("container", "codec", "faststart"),
    [("mp4", "libx264", False), ("mp4", "libx264", True), ("mov", "libx264", True), ("webm", "libvpx", False)],
)
@pytest.mark.parametrize("share", [0.02, 0.4, 0.7])
def test_a_cut_file_is_refused(container: str, codec: str, faststart: bool, share: float) -> None:
    film = media_files.video(3.0, 25, (64, 48), codec, container=container, faststart=faststart)

    with pytest.raises(MediaUnreadable):
        decode_video(media_files.cut(film, share), frames_per_second=5, max_seconds=10)


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (MediaLimits(max_bytes=100), MediaTooLarge),
        (MediaLimits(max_seconds=0.5), MediaTooLong),
        (MediaLimits(max_pixels=64 * 48 - 1), MediaTooLarge),
        (MediaLimits(max_decoded_bytes=64 * 48 * 3 * 10), MediaTooLarge),
        (MediaLimits(max_decode_seconds=0.0), MediaTooLarge),
        (MediaLimits(max_streams=0), MediaTooLarge),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_limit_is_enforced(limits: MediaLimits, error: type[OmnifleetError]) -> None:
    film = media_files.video(1.0, 25, (64, 48))

    with pytest.raises(error):
        decode_video(film, frames_per_second=25, max_seconds=10, limits=limits)


@pytest.mark.parametrize(("pace", "seconds"), [(0, 10), (-5, 10), (5, 0), (float("nan"), 10)])
def test_a_pace_or_length_that_is_not_positive_is_refused(pace: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        decode_video(b"any", frames_per_second=pace, max_seconds=seconds)


SEEDS = {
    "mp4": media_files.video(0.4, 10, faststart=True),
    "mov": media_files.video(0.4, 10, codec="mpeg4", container="mov"),
    "webm": media_files.video(0.4, 10, codec="libvpx", container="webm", audio_rate=48_000),
}


@settings(max_examples=60, deadline=None)
@given(
    container=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    share=st.one_of(st.just(1.0), st.floats(0.0, 1.0)),
)
def test_mutated_and_cut_files_never_crash(container: str, changes: list[tuple[float, int]], share: float) -> None:
    data = bytearray(SEEDS[container])
    for where, value in changes:
        data[int(where * len(data))] = value

    outcome = _outcome(media_files.cut(bytes(data), share))

    if isinstance(outcome, DecodedVideo):
        assert 1 <= len(outcome.frames) <= 50
    else:
        assert outcome.field == "video"


def _outcome(data: bytes) -> DecodedVideo | OmnifleetError:
    limits = MediaLimits(max_decode_seconds=10.0, max_pixels=1_000_000)
    try:
        return decode_video(data, frames_per_second=5, max_seconds=10, limits=limits)
    except OmnifleetError as error:
        return error
