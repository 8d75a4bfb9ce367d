"""Whatever bytes come, nothing else is read, nothing is printed and the end is an Audio or an OmnifleetError."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import MediaUnreadable, OmnifleetError
from omnifleet_worker.media import reader as reader_module
from omnifleet_worker.media.decode import DecodedAudio, decode_audio
from omnifleet_worker.media.isolation.processes import shared_processes
from omnifleet_worker.media.limits import MediaLimits
from support.data import media_files

PLAYLISTS: dict[str, Callable[[str], str]] = {
    "hls": lambda target: f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": lambda target: f"ffconcat version 1.0\nfile {target}\n",
    "dash": lambda target: (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        'mimeType="audio/mp4"><Representation id="0" bandwidth="1">'
        f"<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
    "sdp": lambda target: "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "webvtt": lambda target: f"WEBVTT\n\n00:00.000 --> 00:01.000\n{target}\n",
}


@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_a_playlist_is_refused_and_its_file_is_never_opened(playlist: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(media_files.wav(0.1))

    with _opened(secret) as was_opened:
        for target in (str(secret), f"file://{secret}", f"file:{secret}"):
            with pytest.raises(MediaUnreadable):
                decode_audio(PLAYLISTS[playlist](target).encode())
        assert not was_opened()
        secret.read_bytes()
        assert was_opened(), "the watch itself must work"


@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_even_with_its_format_allowed_a_playlist_opens_no_file(
    playlist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "FORMATS", (*reader_module.FORMATS, *PLAYLISTS))
    monkeypatch.chdir(tmp_path)
    secret = Path("secret.wav")  # a bare name is what libav's own guard lets pass
    secret.write_bytes(media_files.wav(0.1))

    with _opened(secret) as was_opened:
        with pytest.raises(MediaUnreadable):
            decode_audio(PLAYLISTS[playlist](secret.name).encode())
        assert not was_opened()


@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_a_playlist_reaches_no_host(playlist: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for scheme in ("http", "tcp"):
            with pytest.raises(MediaUnreadable):
                decode_audio(PLAYLISTS[playlist](f"{scheme}://127.0.0.1:{port}/x.wav").encode())
        with pytest.raises(BlockingIOError):
            server.accept()


def test_damaged_files_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for format in ("mp3", "aac", "m4a-faststart", "webm", "flac"):
        data = bytearray(media_files.encode(format, media_files.tone(0.5, 48_000), 48_000))
        data[len(data) // 2 :: 7] = b"\xa5" * len(data[len(data) // 2 :: 7])
        capfd.readouterr()
        _audio_or_error(bytes(data))
        assert capfd.readouterr() == ("", "")


RATES = {"flv": 44_100, "amr": 8_000, "3gp": 8_000}


def seed(format: str) -> bytes:
    rate = RATES.get(format, 48_000)
    return media_files.encode(format, media_files.tone(0.3, rate, 1 if rate == 8_000 else 2), rate)


SEEDS = {format: seed(format) for format in media_files.FORMATS}
MAGICS = [
    b"",
    b"RIFF\x24\x00\x00\x00WAVEfmt ",
    b"fLaC",
    b"OggS",
    b"ID3\x04",
    b"\xff\xfb\x90",
    b"\x1aE\xdf\xa3",
    b"\0\0\0 ftypisom",
]


@settings(max_examples=60, deadline=None)
@given(magic=st.sampled_from(MAGICS), rest=st.binary(max_size=2000))
def test_arbitrary_bytes_never_crash(magic: bytes, rest: bytes) -> None:
    _audio_or_error(magic + rest)


@settings(max_examples=80, deadline=None)
@given(
    format=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    in_header=st.booleans(),
    share=st.one_of(st.just(1.0), st.floats(0.0, 1.0)),
)
def test_mutated_and_cut_files_never_crash(
    format: str, changes: list[tuple[float, int]], in_header: bool, share: float
) -> None:
    data = bytearray(SEEDS[format])
    reach = min(len(data), 400) if in_header else len(data)
    for where, value in changes:
        data[int(where * reach)] = value

    _audio_or_error(media_files.cut(bytes(data), share))


def _audio_or_error(data: bytes) -> None:
    began = time.monotonic()
    outcome = _outcome(data)
    assert time.monotonic() - began < 60
    if isinstance(outcome, DecodedAudio):
        assert outcome.samples.shape[1] > 0
        assert np.isfinite(outcome.samples).all()
    else:
        assert outcome.field == "audio"
        assert outcome.problem


def _outcome(data: bytes) -> DecodedAudio | OmnifleetError:
    # Apart from this process, as the worker decodes: there are broken avi and ts files that end it inside libav.
    try:
        return shared_processes().decode_audio(data, limits=MediaLimits(max_decode_seconds=10.0, max_seconds=30.0))
    except OmnifleetError as error:
        return error


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[], bool]]:
    """Tells whether anyone has opened a file, as the kernel saw it (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, bytes(path), 0x20) >= 0  # IN_OPEN

    def was_opened() -> bool:
        try:
            return bool(os.read(watch, 4096))
        except BlockingIOError:
            return False

    try:
        yield was_opened
    finally:
        os.close(watch)


def test_pyav_still_keeps_libav_silent_by_default() -> None:
    assert av.logging.get_level() is None


def test_a_stream_of_unknown_type_is_no_sound_and_ends_nothing() -> None:
    film = media_files.video(0.4, 10, codec="mpeg4", container="avi", audio_rate=44_100)
    at = film.index(b"strf")
    unknown = film[:at] + b"\0" + film[at + 1 :]  # without its form, libav does not know what the stream is

    decoded = _outcome(unknown)

    assert isinstance(decoded, DecodedAudio)
    assert decoded.seconds == pytest.approx(0.4, abs=0.1)
