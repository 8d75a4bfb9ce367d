"""Reading of one untrusted media file under limits: opened from bytes, demuxed and decoded frame by frame."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import av
import av.container
import av.stream
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from omnifleet_shared.errors import MediaEmpty, MediaError, MediaTooLarge, MediaTooLong, MediaUnreadable

from omnifleet_worker.media.length import declared_seconds, falls_short, missing_bytes
from omnifleet_worker.media.limits import MediaLimits

# Only formats that hold their media themselves. Playlists (hls, dash, concat, sdp, image2…) name other files and
# URLs, which libav would go and open with the worker's rights.
FORMATS = ("wav", "flac", "mp3", "ogg", "aac", "mov", "matroska")

# The decoders that those formats commonly need; the many others in libav are attack surface.
CODECS = {
    "audio": (
        *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
        *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"),
        *("flac", "alac", "mp3float", "mp3", "mp2float", "mp2", "aac", "vorbis", "opus", "ac3", "eac3"),
    ),
    "video": ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg", "prores"),
}

# A damaged packet here and there is a glitch that every player skips; more of them is a damaged file.
_SPARE_PACKETS = 2
_SPARE_SHARE = 0.01

_REMEDIES = {
    "audio": "Send wav, flac, mp3, ogg, m4a, mp4 or webm with sound",
    "video": "Send mp4, mov or webm with pictures",
}

Kind = Literal["audio", "video"]
FrameT = TypeVar("FrameT", AudioFrame, VideoFrame)


class _TimedBytes(io.BytesIO):
    """A file in memory that ends for libav at a deadline, so that no demuxer can search it for ever.

    Neither method raises: PyAV stashes what a callback raises and may hand it to an unrelated later call.
    """

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self._deadline = deadline

    @property
    def timed_out(self) -> bool:
        return time.monotonic() > self._deadline

    def read(self, size: int | None = -1, /) -> bytes:
        return b"" if self.timed_out else super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence & 0xFFFF)  # libav adds a flag for "even if slow"
        except (ValueError, OverflowError):
            return -1


class MediaReader:
    """A file opened for decoding; made by `open_media`.

    Args:
        container: libav's view of the file.
        file: the bytes that the container reads.
        data: the same bytes.
        kind: the stream to read, "audio" or "video".
        field: the request's field, for errors.
        limits: what is allowed.
        track: number of the stream among those of its kind; the default one when None.

    Attributes:
        stream: the stream that is read.
        format: libav's name of the container format, such as "matroska,webm".
        declared_seconds: length that the file declares, if it does.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        file: _TimedBytes,
        data: bytes,
        *,
        kind: Kind,
        field: str,
        limits: MediaLimits,
        track: int | None = None,
    ) -> None:
        self.format = container.format.name
        self._container = container
        self._file = file
        self._field = field
        self._limits = limits
        self._packets = 0
        self._undecodable = 0
        self._broke_off = False
        self._container_end = 0.0
        self._check_time()
        self._check_streams()
        self.stream = self._choose(kind, track)
        self.declared_seconds = declared_seconds(container, self.stream, data)
        self.check_seconds(self.declared_seconds or 0.0)

    def frames(self, frame_type: type[FrameT]) -> Iterator[FrameT]:
        """Decode the frames of the stream, in presentation order.

        Raises:
            MediaUnreadable: more than 1 % of the packets (and more than 2), or all of them, cannot be decoded.
            MediaTooLarge: decoding takes more wall time than the limits allow.
        """
        for packet in self._demux():
            for frame in self._decode(packet):
                self._check_time()
                if isinstance(frame, frame_type):
                    yield frame
        spare = min(self._packets - 1, max(_SPARE_PACKETS, _SPARE_SHARE * self._packets))
        if self._undecodable > max(0, spare):
            raise self.unreadable(f"{self._undecodable} of its {self._packets} packets are damaged")

    def packets(self) -> Iterator[av.Packet]:
        """Read the encoded packets of the stream, in the file's order.

        Raises:
            MediaUnreadable: the file breaks off.
            MediaTooLarge: reading takes more wall time than the limits allow.
        """
        yield from (packet for packet in self._demux() if packet.size)
        if self._broke_off:
            raise self.unreadable(f"the file breaks off after {self._container_end:.2f} seconds")

    def check_seconds(self, seconds: float) -> None:
        """Raise MediaTooLong if `seconds` are more than the limits allow."""
        if seconds > self._limits.max_seconds:
            raise MediaTooLong(
                f"it is at least {seconds:.1f} seconds long, and {self._limits.max_seconds:g} seconds are allowed",
                self._field,
                "Send a shorter part of it",
                {"seconds": seconds, "max_seconds": self._limits.max_seconds},
            )

    def check_decoded_bytes(self, count: int) -> None:
        """Raise MediaTooLarge if `count` bytes of samples or frames are more than the limits allow."""
        if count > self._limits.max_decoded_bytes:
            raise self.too_large(
                f"decoded it fills more than {self._limits.max_decoded_bytes} bytes",
                "Send a shorter part of it, fewer channels or a lower rate",
            )

    def check_complete(self, seconds: float) -> None:
        """Raise MediaUnreadable if a stream of `seconds` decoded seconds is clearly less than was declared."""
        found = self._container_end if self.format == "matroska,webm" else seconds
        declared = self.declared_seconds
        if declared is not None and falls_short(self.format, declared, found):
            problem = f"the file is cut off: it declares {declared:.2f} seconds and holds {found:.2f}"
            raise self.unreadable(problem, declared_seconds=declared, found_seconds=found)
        if self._broke_off:
            raise self.unreadable(f"the file breaks off after {found:.2f} seconds", found_seconds=found)

    def unreadable(self, problem: str, **details: float) -> MediaUnreadable:
        """Build the error for a file that is damaged or not of the kind requested."""
        return MediaUnreadable(problem, self._field, "Export the file again and send it whole", details)

    def too_large(self, problem: str, remedy: str) -> MediaTooLarge:
        """Build the error for a file over one of the limits."""
        return MediaTooLarge(problem, self._field, remedy)

    def _check_streams(self) -> None:
        count, allowed = len(self._container.streams), self._limits.max_streams
        if count > allowed:
            raise self.too_large(f"it holds {count} streams, and {allowed} are allowed", "Send one stream of it")

    def _choose(self, kind: Kind, track: int | None) -> av.stream.Stream:
        streams = [
            stream
            for stream in self._container.streams
            if stream.type == kind and not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            raise MediaUnreadable(f"the file holds no {kind} stream", self._field, _REMEDIES[kind])
        if track is not None and track >= len(streams):
            problem = f"{self._field} has {len(streams)} sound tracks, and none of number {track}"
            raise MediaUnreadable(problem, "audio_track", f"Use 0 to {len(streams) - 1}, or leave it out")
        chosen = _default_of(streams, kind) if track is None else streams[track]
        if _codec(chosen) not in CODECS[kind]:
            problem = f"its {kind} is encoded as {_codec(chosen)}, which is not taken"
            raise MediaUnreadable(problem, self._field, _REMEDIES[kind])
        return chosen

    def _demux(self) -> Iterator[av.Packet]:
        packets = self._container.demux()
        while True:
            self._check_time()
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError):
                self._broke_off = True
                return
            if packet is None:
                return
            self._note_end(packet)
            if packet.stream.index == self.stream.index:
                yield packet

    def _decode(self, packet: av.Packet) -> list[AudioFrame] | list[VideoFrame]:
        self._packets += 1 if packet.size else 0  # the last one is empty: it makes the decoder hand out what it holds
        try:
            # Of a stream of sound or pictures; subtitles, which the type has too, are never chosen.
            return packet.decode()  # type: ignore[return-value]
        except (av.FFmpegError, ValueError):
            self._undecodable += 1
            return []

    def _note_end(self, packet: av.Packet) -> None:
        if packet.pts is not None and packet.time_base:  # a stream may have no time base
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._container_end = max(self._container_end, end)

    def _check_time(self) -> None:
        if self._file.timed_out:
            raise _too_slow(self._field, self._limits)


def _default_of(streams: list[av.stream.Stream], kind: Kind) -> av.stream.Stream:
    """Choose the stream that the file marks as its default, else the first; of those that can be decoded, if any.

    Phones write a spatial sound track, which nobody else decodes, beside one in AAC.
    """
    known = [stream for stream in streams if _codec(stream) in CODECS[kind]] or streams
    marked = [stream for stream in known if stream.disposition & av.stream.Disposition.default]
    return (marked or known)[0]


def _codec(stream: av.stream.Stream) -> str:
    return stream.codec_context.name if stream.codec_context else "an unknown codec"


@contextmanager
def open_media(
    data: bytes, *, kind: Kind, field: str, limits: MediaLimits, track: int | None = None
) -> Iterator[MediaReader]:
    """Open an audio or video stream of a file held in memory; nothing but `data` is ever read.

    It is the file's default one, or `track` counted among those of its kind.

    Raises:
        MediaEmpty: there are no bytes.
        MediaUnreadable: not a known format, damaged or cut off, or without such a stream or track.
        MediaTooLarge: more bytes or streams, or longer in opening, than the limits allow.
        MediaTooLong: more seconds declared than the limits allow.
    """
    _check_bytes(data, kind, field, limits)
    file = _TimedBytes(data, time.monotonic() + limits.max_decode_seconds)
    try:
        container = _open_container(file, limits)
    except (av.FFmpegError, ValueError) as error:
        raise _not_opened(error, file, kind, field, limits) from error
    with container:
        yield MediaReader(container, file, data, kind=kind, field=field, limits=limits, track=track)


def _open_container(file: _TimedBytes, limits: MediaLimits) -> av.container.InputContainer:
    # Not `options=`: PyAV frees one dictionary per stream for it, past the end of its array when libav finds more
    # streams while it probes.
    return av.open(
        file,
        mode="r",
        metadata_errors="replace",
        container_options={
            "format_whitelist": ",".join(FORMATS),
            "protocol_whitelist": "none",
            "codec_whitelist": ",".join(CODECS["audio"] + CODECS["video"]),
            # One more than allowed, so that the count can be told; libav itself stops there.
            "max_streams": str(limits.max_streams + 1),
        },
    )


def _check_bytes(data: bytes, kind: Kind, field: str, limits: MediaLimits) -> None:
    if not data:
        raise MediaEmpty("the file holds no bytes", field, _REMEDIES[kind])
    if len(data) > limits.max_bytes:
        problem = f"the file holds {len(data)} bytes, and {limits.max_bytes} are allowed"
        raise MediaTooLarge(problem, field, "Send a shorter part of it, or compress it")
    missing = missing_bytes(data)
    if missing:
        raise MediaUnreadable(
            f"the file is cut off: it declares {len(data) + missing} bytes and holds {len(data)}",
            field,
            "Export the file again and send it whole",
            {"declared_bytes": len(data) + missing, "found_bytes": len(data)},
        )


def _not_opened(error: Exception, file: _TimedBytes, kind: Kind, field: str, limits: MediaLimits) -> MediaError:
    if file.timed_out:
        return _too_slow(field, limits)
    if isinstance(error, MemoryError):  # libav's answer to a stream too many, and to sizes that no memory could hold
        problem = f"it asks for more than {limits.max_streams} streams, or for more memory than there is"
        return MediaTooLarge(problem, field, "Send one stream of it")
    return MediaUnreadable("the bytes are no audio or video that can be read", field, _REMEDIES[kind])


def _too_slow(field: str, limits: MediaLimits) -> MediaTooLarge:
    problem = f"decoding it takes more than {limits.max_decode_seconds:g} seconds"
    return MediaTooLarge(problem, field, "Send a shorter part of it")
