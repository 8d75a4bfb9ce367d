"""Reading of one untrusted media file under limits: opened from bytes, demuxed and decoded frame by frame."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Literal, TypeVar

import av
import av.container
import av.stream
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from omnifleet_shared.errors import MediaError, MediaTooLarge, MediaUnreadable

from omnifleet_worker.media.length import (
    MP4,
    count_joined,
    declared_seconds,
    falls_short,
    has_fragments,
    missing_bytes,
)
from omnifleet_worker.media.limits import LimitGuard, MediaLimits
from omnifleet_worker.media.sniff import name_of

# Only formats that hold their media themselves. Playlists (hls, dash, concat, sdp, image2…) name other files and
# URLs, which libav would go and open with the worker's rights.
FORMATS = (
    *("wav", "w64", "flac", "mp3", "ogg", "aac", "mov", "matroska"),
    *("aiff", "caf", "amr", "asf", "flv", "mpegts", "avi"),
)

# The decoders that those formats commonly need; the many others in libav are attack surface.
CODECS = {
    "audio": (
        *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
        *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
        *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf"),
        *("flac", "alac", "mp3float", "mp3", "mp2float", "mp2", "aac", "aac_latm", "vorbis", "opus", "ac3", "eac3"),
        *("amrnb", "amrwb", "wmav1", "wmav2", "wmapro", "wmalossless", "nellymoser", "speex", "dca", "truehd"),
    ),
    "video": (
        *("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg", "prores"),
        *("mpeg1video", "mpeg2video", "h263", "flv", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1"),
    ),
}

_OGG_BEGINS = b"OggS\x00\x02"
"""The first page of each stream in an ogg file; there are several where files are joined."""

_LOSSLESS = ("pcm_s", "pcm_u", "pcm_f", "flac", "alac", "wmalossless", "truehd")

# A damaged packet here and there is a glitch that every player skips; more of them is a damaged file.
_SPARE_PACKETS = 2
_SPARE_SHARE = 0.01

_REMEDIES = {
    "audio": "Send wav, flac, mp3, ogg, m4a, mp4 or webm with sound; ffmpeg -i FILE sound.flac makes one",
    "video": "Send mp4, mov or webm with pictures; ffmpeg -i FILE film.mp4 makes one",
}

# What a file declares counts its encoder's padding too: only what is clearly too long is refused by it alone.
_DECLARED_SPARE = {"audio": 1.0, "video": 0.1}

Kind = Literal["audio", "video"]
# Not by `stream.type`, which ends the process for a stream of a type that libav does not know (PyAV 16).
_STREAMS: dict[str, type[av.stream.Stream]] = {"audio": AudioStream, "video": VideoStream}
FrameT = TypeVar("FrameT", AudioFrame, VideoFrame)


class _TimedBytes(io.BytesIO):
    """A file in memory that ends for libav at the guard's deadline, so that no demuxer can search it for ever.

    Neither method raises: PyAV stashes what a callback raises and may hand it to an unrelated later call.
    """

    def __init__(self, data: bytes, guard: LimitGuard) -> None:
        super().__init__(data)
        self._guard = guard

    def read(self, size: int | None = -1, /) -> bytes:
        return b"" if self._guard.timed_out else super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence & 0xFFFF)  # libav adds a flag for "even if slow"
        except (ValueError, OverflowError):
            return -1


class MediaReader:
    """A file opened for decoding; made by `open_media`.

    Args:
        container: libav's view of the file.
        data: the file's bytes.
        kind: the stream to read, "audio" or "video".
        guard: enforces what is allowed.
        track: number of the stream among those of its kind; the default one when None.

    Attributes:
        stream: the stream that is read.
        format: libav's name of the container format, such as "matroska,webm".
        guard: as passed.
        declared_seconds: length that the file declares, if it does.
        origin: where time begins, in seconds of the file's own timestamps; None where the stream itself begins it.
        declares_end: whether the stream's declared end is exact, so that what is decoded beyond it is padding.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        data: bytes,
        *,
        kind: Kind,
        guard: LimitGuard,
        track: int | None = None,
    ) -> None:
        self.format = container.format.name
        self.guard = guard
        self._container = container
        self._field = guard.field
        self._packets = 0
        self._undecodable = 0
        self._broke_off = False
        self._container_end = self._stream_end = 0.0
        guard.check_time()
        self._check_streams()
        self.stream = self._choose(kind, track)
        self.declared_seconds = declared_seconds(container, self.stream, data)
        whole_mp4 = self.format == MP4 and not has_fragments(data)
        self._is_primed = self._prime(data)
        self.declares_end = whole_mp4 or self._is_primed
        self.origin = 0.0 if whole_mp4 else self._find_origin()
        guard.check_seconds(self.declared_seconds or 0.0, spare=_DECLARED_SPARE[kind])

    @property
    def lossy(self) -> bool:
        """Whether the stream's encoding does not keep what was encoded."""
        return not _codec(self.stream).startswith(_LOSSLESS)

    def frames(self, frame_type: type[FrameT]) -> Iterator[FrameT]:
        """Decode the frames of the stream, in presentation order.

        Raises:
            MediaUnreadable: more than 1 % of the packets (and more than 2), or all of them, cannot be decoded.
            MediaTooLarge: decoding takes more wall time than the limits allow.
        """
        found = (frame for packet in self._demux() for frame in self._decode(packet))
        for frame in islice(found, int(self._is_primed), None):
            self.guard.check_time()
            if isinstance(frame, frame_type):
                yield frame
        spare = min(self._packets - 1, max(_SPARE_PACKETS, _SPARE_SHARE * self._packets))
        if self._undecodable > max(0, spare):
            raise self.guard.unreadable(f"{self._undecodable} of its {self._packets} packets are damaged")

    def packets(self) -> Iterator[av.Packet]:
        """Read the encoded packets of the stream, in the file's order.

        Raises:
            MediaUnreadable: the file breaks off.
            MediaTooLarge: reading takes more wall time than the limits allow.
        """
        yield from (packet for packet in self._demux() if packet.size)
        if self._broke_off:
            raise self.guard.unreadable(f"the file breaks off after {self._container_end:.2f} seconds")

    def check_complete(self, seconds: float) -> None:
        """Raise MediaUnreadable if a stream of `seconds` decoded seconds is clearly less than was declared."""
        found = self._found_seconds(seconds)
        declared = self.declared_seconds
        if declared is not None and falls_short(self.format, declared, found):
            problem = f"the file is cut off: it declares {declared:.2f} seconds and holds {found:.2f}"
            raise self.guard.unreadable(problem, declared_seconds=declared, found_seconds=found)
        if self._broke_off:
            raise self.guard.unreadable(f"the file breaks off after {found:.2f} seconds", found_seconds=found)

    def _found_seconds(self, decoded: float) -> float:
        """The length by which a file counts as whole: in containers with timestamps the end of the last packet."""
        if self.format == "matroska,webm":
            return self._container_end
        return max(decoded, self._stream_end - _start(self.stream)) if self.format == MP4 else decoded

    def _prime(self, data: bytes) -> bool:
        """Take the trimming of Vorbis in ogg from libav, and say whether that was done.

        A file shorter than a page has no other timestamp than its end. libav then counts from the first block, which
        makes no sound yet, and cuts that much off the end, or nothing where there is more to cut.
        """
        if self.format != "ogg" or _codec(self.stream) != "vorbis" or data.count(_OGG_BEGINS) != 1:
            return False
        self.stream.codec_context.flags2 |= Flags2.skip_manual
        return True

    def _find_origin(self) -> float | None:
        """Time begins with the first of a film's streams; a sound alone begins it, save in mp4 with its edit list."""
        kinds = [stream for stream in self._container.streams if isinstance(stream, AudioStream | VideoStream)]
        streams = [stream for stream in kinds if not stream.disposition & av.stream.Disposition.attached_pic]
        # What begins before 0 is the encoder's lead-in, which is not heard.
        starts = [max(0.0, _start(stream)) for stream in streams if stream.start_time is not None]
        return min(starts) if len(streams) > 1 and starts else None

    def _check_streams(self) -> None:
        count, allowed = len(self._container.streams), self.guard.limits.max_streams
        if count > allowed:
            raise self.guard.too_large(f"it holds {count} streams, and {allowed} are allowed", "Send one stream of it")

    def _choose(self, kind: Kind, track: int | None) -> av.stream.Stream:
        streams = [
            stream
            for stream in self._container.streams
            if isinstance(stream, _STREAMS[kind]) and not stream.disposition & av.stream.Disposition.attached_pic
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
            self.guard.check_time()
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
            if packet.stream.index == self.stream.index:
                self._stream_end = max(self._stream_end, end)


def _start(stream: av.stream.Stream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


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
    guard = LimitGuard(field, limits)
    guard.check_bytes(data, _REMEDIES[kind])
    _check_whole(data, guard)
    try:
        container = _open_container(_TimedBytes(data, guard), limits)
    except (av.FFmpegError, ValueError) as error:
        raise _not_opened(error, data, kind, guard) from error
    with container:
        yield MediaReader(container, data, kind=kind, guard=guard, track=track)


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


def _check_whole(data: bytes, guard: LimitGuard) -> None:
    missing = missing_bytes(data)
    if missing:
        problem = f"the file is cut off: it declares {len(data) + missing} bytes and holds {len(data)}"
        raise guard.unreadable(problem, declared_bytes=len(data) + missing, found_bytes=len(data))
    joined = count_joined(data)
    if joined > 1:
        remedy = "Send them one by one, or join them with ffmpeg's concat demuxer"
        raise MediaUnreadable(f"{joined} files are joined in it, and would not be read to the end", guard.field, remedy)


def _not_opened(error: Exception, data: bytes, kind: Kind, guard: LimitGuard) -> MediaError:
    if guard.timed_out:
        return guard.too_slow()
    if isinstance(error, MemoryError):  # libav's answer to a stream too many, and to sizes that no memory could hold
        most = guard.limits.max_streams
        problem = f"it asks for more than {most} streams, or for more memory than there is"
        return MediaTooLarge(problem, guard.field, "Send one stream of it")
    name = name_of(data)
    problem = f"the file is {name}" if name else "the bytes are no audio or video that can be read"
    return MediaUnreadable(problem, guard.field, _REMEDIES[kind])
