"""Audio and video files for tests, made on the spot: every format that a user may send, and broken ones."""

from __future__ import annotations

import io
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

# By name: container, encoder, its sample format, options of the muxer.
_AV_FORMATS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "mp3": ("mp3", "libmp3lame", "fltp", {}),
    "mp3-without-length": ("mp3", "libmp3lame", "fltp", {"write_xing": "0"}),
    "aac": ("adts", "aac", "fltp", {}),
    "m4a": ("mp4", "aac", "fltp", {}),
    "m4a-faststart": ("mp4", "aac", "fltp", {"movflags": "faststart"}),
    "m4a-fragmented": ("mp4", "aac", "fltp", {"movflags": "empty_moov", "frag_duration": "200000"}),
    "opus": ("ogg", "libopus", "flt", {}),
    "webm": ("webm", "libopus", "flt", {}),
    "mov": ("mov", "pcm_s16le", "s16", {}),
    "mkv": ("matroska", "flac", "s16", {}),
    "caf": ("caf", "pcm_s16be", "s16", {}),
    "flv": ("flv", "libmp3lame", "fltp", {}),
    "ts": ("mpegts", "mp2", "s16", {}),
    "avi": ("avi", "libmp3lame", "fltp", {}),
    "avi-pcm": ("avi", "pcm_s16le", "s16", {}),
    "amr": ("amr", "libopencore_amrnb", "s16", {}),
    "3gp": ("3gp", "libopencore_amrnb", "s16", {}),
}
_SOUNDFILE_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav-u8": ("WAV", "PCM_U8"),
    "wav-24": ("WAV", "PCM_24"),
    "wav-32": ("WAV", "PCM_32"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-double": ("WAV", "DOUBLE"),
    "flac": ("FLAC", "PCM_16"),
    "flac-24": ("FLAC", "PCM_24"),
    "ogg": ("OGG", "VORBIS"),
    "aiff": ("AIFF", "PCM_24"),
    "w64": ("W64", "PCM_24"),
}
FORMATS = (*_SOUNDFILE_FORMATS, *_AV_FORMATS)
"""Every name that `encode` takes. `opus` and `webm` take 8, 12, 16, 24 and 48 kHz only; `flv` 11,025, 22,050 and 44,100
Hz; `amr` and `3gp` 8,000 Hz with one channel."""

Rotation = Literal[0, 90, 180, 270]


def tone(
    seconds: float, rate: int, channels: int = 1, *, hertz: float = 440.0, level: float = 0.5
) -> NDArray[np.float32]:
    """A sine [channels, n] of `level` full scale; channel k sounds at (k + 1) times `hertz`."""
    times = np.arange(round(seconds * rate)) / rate
    return np.stack([level * np.sin(2 * np.pi * hertz * (k + 1) * times) for k in range(channels)]).astype(np.float32)


def encode(format: str, samples: NDArray[np.float32], rate: int) -> bytes:
    """A file of `samples` [channels, n] in one of `FORMATS`."""
    if format in _SOUNDFILE_FORMATS:
        container, subtype = _SOUNDFILE_FORMATS[format]
        target = io.BytesIO()
        soundfile.write(target, samples.T, rate, format=container, subtype=subtype)
        return target.getvalue()
    return _encode_with_av(format, samples, rate)


def wav(seconds: float = 1.0, rate: int = 44_100, channels: int = 1) -> bytes:
    """A wav file of a tone, 16 bits."""
    return encode("wav", tone(seconds, rate, channels), rate)


def cut(data: bytes, share: float) -> bytes:
    """The first `share` of a file, as a broken upload leaves it."""
    return data[: int(len(data) * share)]


def video(
    seconds: float = 1.0,
    fps: float = 25.0,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    rotation: Rotation = 0,
    *,
    container: str = "mp4",
    times: list[float] | None = None,
    audio_rate: int | None = None,
    faststart: bool = False,
    pixels: str = "yuv420p",
    sideways: bool = False,
    live: bool = False,
) -> bytes:
    """A film whose frames tell their number (up to 63), see `frame_number`; the top of each frame is red.

    Args:
        seconds: length; not looked at with `times`, where the muxer chooses how long the last frame lasts.
        fps: frames per second.
        size: width and height in pixels, as stored.
        codec: PyAV's encoder: libx264, mpeg4, libvpx, libvpx-vp9…
        rotation: degrees counter-clockwise that a player must turn the frames (mp4 and mov).
        container: mp4, mov, webm or matroska.
        times: the frames' own times in seconds, for a variable frame rate.
        audio_rate: adds a tone at that many samples per second.
        faststart: the index before the frames, so that a cut file can still be opened.
        pixels: libav's pixel format; yuv422p10le for prores_ks.
        sideways: paints the left quarter blue, so that left and right can be told.
        live: without a length, as a browser records webm.
    """
    times = times if times is not None else [k / fps for k in range(round(seconds * fps))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        options = ({"movflags": "faststart"} if faststart else {}) | ({"live": "1"} if live else {})
        with av.open(str(path), "w", format=container, options=options) as out:
            film = cast(av.VideoStream, out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001)))
            film.width, film.height, film.pix_fmt = *size, pixels
            film.codec_context.time_base = Fraction(1, 1000)
            sound_codec, sample_format = ("libopus", "flt") if container == "webm" else ("aac", "fltp")
            sound = None if audio_rate is None else out.add_stream(sound_codec, audio_rate, layout="mono")
            for number, when in enumerate(times):
                frame = av.VideoFrame.from_ndarray(_picture(number, size, sideways), format="rgb24")
                frame.pts, frame.time_base = round(when * 1000), Fraction(1, 1000)
                out.mux(film.encode(frame))
            out.mux(film.encode(None))
            if sound is not None and audio_rate is not None:
                _mux_sound(out, cast(av.AudioStream, sound), tone(seconds, audio_rate), audio_rate, sample_format)
        return _rotated(path.read_bytes(), rotation)


def frame_number(picture: NDArray[np.uint8]) -> int:
    """The number that `video` wrote into an upright frame [H, W, 3] as the grey of its lower half."""
    lower = picture[picture.shape[0] * 3 // 4 :]
    return round(float(lower.mean()) / 4)


def _picture(number: int, size: tuple[int, int], sideways: bool) -> NDArray[np.uint8]:
    width, height = size
    picture = np.full((height, width, 3), min(255, number * 4), np.uint8)
    picture[: height // 4] = (255, 0, 0)
    if sideways:
        picture[height // 4 :, : width // 4] = (0, 0, 255)
    return picture


def _encode_with_av(format: str, samples: NDArray[np.float32], rate: int) -> bytes:
    container, codec, sample_format, options = _AV_FORMATS[format]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        with av.open(str(path), "w", format=container, options=options) as out:
            stream = cast(av.AudioStream, out.add_stream(codec, rate=rate, layout=_LAYOUTS[len(samples)]))
            stream.codec_context.format = sample_format
            _mux_sound(out, stream, samples, rate, sample_format)
        return path.read_bytes()


def _mux_sound(
    out: av.container.OutputContainer,
    stream: av.AudioStream,
    samples: NDArray[np.float32],
    rate: int,
    sample_format: str,
) -> None:
    data: NDArray[np.float32] | NDArray[np.int16] = (
        samples if sample_format.startswith("flt") else (samples * 32_767).astype(np.int16)
    )
    data = data if sample_format.endswith("p") else data.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=sample_format, layout=_LAYOUTS[len(samples)])
    frame.sample_rate, frame.pts = rate, 0
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _rotated(film: bytes, rotation: Rotation) -> bytes:
    """The mp4 with its first track's display matrix turned; PyAV has no way to write one."""
    if not rotation:
        return film
    cos, sin = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[rotation]
    one = 1 << 16
    matrix = [cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    at = film.index(b"tkhd") + 44
    return film[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in matrix) + film[at + 36 :]


def tracks(*sounds: NDArray[np.float32], rate: int, default: int | None = None) -> bytes:
    """A matroska file with a track for each of `sounds` [channels, n], flac; `default` is marked as such."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as out:
        streams = [cast(av.AudioStream, out.add_stream("flac", rate=rate, layout=_LAYOUTS[len(one)])) for one in sounds]
        for number, stream in enumerate(streams):
            marks = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            stream.disposition = marks.value
        for stream, samples in zip(streams, sounds, strict=True):
            stream.codec_context.format = "s16"
            _mux_sound(out, stream, samples, rate, "s16")
    return target.getvalue()


def with_edit_list(film: bytes, parts: list[tuple[float, float]]) -> bytes:
    """An mp4 whose pictures are shown in these parts alone, each (start, end) in seconds of the film as it was."""
    at = film.index(b"elst", film.index(b"moov"))
    media_scale = int.from_bytes(film[film.index(b"mdhd") + 16 :][:4], "big")
    movie_scale = int.from_bytes(film[film.index(b"mvhd") + 16 :][:4], "big")
    lead = int.from_bytes(film[at + 16 : at + 20], "big", signed=True)
    entries = b"".join(
        round((end - start) * movie_scale).to_bytes(4, "big")
        + (lead + round(start * media_scale)).to_bytes(4, "big")
        + (1 << 16).to_bytes(4, "big")
        for start, end in parts
    )
    new = b"elst" + bytes(4) + len(parts).to_bytes(4, "big") + entries
    old_size = int.from_bytes(film[at - 4 : at], "big")
    patched = bytearray(film[: at - 4] + (len(new) + 4).to_bytes(4, "big") + new + film[at - 4 + old_size :])
    for parent in (b"moov", b"trak", b"edts"):  # the index lies behind the frames, so that nothing else moves
        place = film.rindex(parent, 0, at) - 4
        size = int.from_bytes(film[place : place + 4], "big") + len(new) + 4 - old_size
        patched[place : place + 4] = size.to_bytes(4, "big")
    return bytes(patched)


def with_matrix(film: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """The mp4 with its first track shown so that a point (x, y) comes to (a x + c y, b x + d y)."""
    one = 1 << 16
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    at = film.index(b"tkhd") + 44
    return film[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in matrix) + film[at + 36 :]
