"""The processes that decode and encode, as the worker uses them: kept for the next file, and replaced after a crash."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidJob, MediaTooLarge, MediaUnreadable, OmnifleetError, OutOfMemory
from omnifleet_shared.errors import error_from_wire as rebuild_error
from omnifleet_shared.schema.jobs import AudioFormat

from ..decode import AudioForm, DecodedAudio
from ..decode import decode_audio as decode_in_process
from ..encode import FloatSamples, Subtype
from ..encode import encode_audio as encode_in_process
from ..encode import encode_samples as encode_samples_in_process
from ..limits import DEFAULT_LIMITS, MediaLimits
from ..measure import measure_audio as measure_in_process
from ..mux import MuxedVideo
from ..video import DecodedVideo, Size
from ..wav import read_wav
from .channel import Buffer, ChannelClosed, pair, receive, send

logger = logging.getLogger(__name__)

_IN_PROCESS = ("wav", "flac")
"""Formats whose encoders are plain: libsndfile writes numbers as they are, or FLAC's integer arithmetic on them."""
_SPARE_SECONDS = 15.0
"""A process that has not answered so long after its own time limit hangs, and is ended."""
_ENCODE_SECONDS = 300.0
_ATTEMPTS = 2


class MediaProcesses:
    """Decodes and encodes as the functions of the same names do, in processes of their own.

    A file that ends its process is tried once more in a fresh one, and then refused. Uncompressed wav files, which
    need no decoder, and wav and flac results are read and written in this process.

    Args:
        most: processes at once; further callers wait. By default two for each CPU, at least four.
        program: module that they run.
    """

    def __init__(self, most: int | None = None, program: str = "omnifleet_worker.media.isolation.child") -> None:
        self._program = program
        self._places = threading.BoundedSemaphore(most or max(4, 2 * len(os.sched_getaffinity(0))))
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._closed = False

    def start(self) -> None:
        """Start a first process, so that the first file does not wait for it."""
        with self._places:
            self._keep(_Process(self._program))

    def close(self) -> None:
        """End the processes that are idle; those at work end with their file."""
        with self._lock:
            self._closed, idle = True, self._idle
            self._idle = []
        for process in idle:
            process.end()

    def decode_audio(
        self,
        data: bytes,
        *,
        field: str = "audio",
        limits: MediaLimits = DEFAULT_LIMITS,
        **form: Unpack[AudioForm],
    ) -> DecodedAudio:
        """Decode sound; see `media.decode.decode_audio`."""
        if _is_plain(data, field, form):
            return decode_in_process(data, limits=limits, field=field, **form)
        said, made = self._decode("decode_audio", [data], limits, {"field": field, **form})
        places = None if said["places"] is None else tuple(said["places"])
        return DecodedAudio(_array(made), said["sample_rate"], places, said["lossy"])

    def decode_video(
        self,
        data: bytes,
        *,
        frames_per_second: float,
        max_seconds: float,
        size: Size | None = None,
        field: str = "video",
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> DecodedVideo:
        """Decode pictures; see `media.video.decode_video`."""
        pace = {"frames_per_second": frames_per_second, "max_seconds": max_seconds}
        said, made = self._decode("decode_video", [data], limits, {**pace, "size": size, "field": field})
        return DecodedVideo(_array(made), said["frames_per_second"], said["seconds"])

    def measure_audio(
        self,
        data: bytes,
        *,
        field: str = "audio",
        limits: MediaLimits = DEFAULT_LIMITS,
        **form: Unpack[AudioForm],
    ) -> int:
        """Tell the bytes that decoding sound makes; see `media.measure.measure_audio`."""
        if _is_plain(data, field, form):
            return measure_in_process(data, limits=limits, field=field, **form)
        return int(self._decode("measure_audio", [data], limits, {"field": field, **form})[0]["bytes"])

    def measure_video(
        self, data: bytes, *, frames_per_second: float, field: str = "video", limits: MediaLimits = DEFAULT_LIMITS
    ) -> int:
        """Tell the bytes that decoding pictures makes; see `media.measure.measure_video`."""
        options = {"frames_per_second": frames_per_second, "field": field}
        return int(self._decode("measure_video", [data], limits, options)[0]["bytes"])

    def why_not_muxed(self, video: bytes, *, field: str = "video", limits: MediaLimits = DEFAULT_LIMITS) -> str | None:
        """Say why a video cannot get another sound; see `media.mux.why_not_muxed`."""
        try:
            said, _ = self._decode("why_not_muxed", [video], limits, {"field": field})
        except MediaUnreadable as error:  # it ended its process
            return str(error)
        reason: str | None = said["reason"]
        return reason

    def mux(
        self,
        video: bytes,
        pcm: NDArray[np.int16],
        sample_rate: int,
        *,
        field: str = "video",
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> MuxedVideo:
        """Put sound under pictures; see `media.mux.mux`."""
        said, made = self._decode("mux", [video, pcm], limits, {"sample_rate": sample_rate, "field": field})
        return MuxedVideo(_bytes(made), said["format"], said["seconds"])

    def encode_audio(self, pcm: NDArray[np.int16], sample_rate: int, format: AudioFormat) -> bytes:
        """Encode a clip; see `media.encode.encode_audio`."""
        if format in _IN_PROCESS:
            return encode_in_process(pcm, sample_rate, format)
        return self._encode("encode_audio", pcm, {"sample_rate": sample_rate, "format": format})

    def encode_samples(self, samples: FloatSamples, sample_rate: int, format: AudioFormat, subtype: Subtype) -> bytes:
        """Encode a recording; see `media.encode.encode_samples`."""
        if format in _IN_PROCESS:
            return encode_samples_in_process(samples, sample_rate, format, subtype)
        return self._encode(
            "encode_samples", samples, {"sample_rate": sample_rate, "format": format, "subtype": subtype}
        )

    def _decode(
        self, call: str, buffers: Sequence[Buffer], limits: MediaLimits, options: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Buffer]]:
        field = options["field"]
        try:
            return self._call(call, buffers, limits, options, limits.max_decode_seconds)
        except _Crashed as crash:
            problem = f"reading it ends the decoder ({crash.how})"
            raise MediaUnreadable(problem, field, "Export the file again, as flac or mp4") from crash
        except TimeoutError as error:
            problem = f"reading it takes more than {limits.max_decode_seconds:g} seconds"
            raise MediaTooLarge(problem, field, "Send a shorter part of it") from error

    def _encode(self, call: str, samples: NDArray[Any], options: dict[str, Any]) -> bytes:
        form = options["format"]
        try:
            return _bytes(self._call(call, [samples], DEFAULT_LIMITS, options, _ENCODE_SECONDS)[1])
        except (_Crashed, TimeoutError) as error:
            how = error.how if isinstance(error, _Crashed) else f"it took over {_ENCODE_SECONDS:g} seconds"
            raise InvalidJob(f"the encoder of {form} ended ({how})", "format", "Use wav or flac") from error

    def _call(
        self, call: str, buffers: Sequence[Buffer], limits: MediaLimits, options: dict[str, Any], seconds: float
    ) -> tuple[dict[str, Any], list[Buffer]]:
        header = {"call": call, "options": options, "limits": asdict(limits), "field": options.get("field")}
        with self._places:
            for attempt in range(1, _ATTEMPTS + 1):
                process = self._take() if attempt == 1 else _Process(self._program)
                try:
                    answer, made = process.ask(header, buffers, seconds + _SPARE_SECONDS)
                except _Crashed as crash:
                    logger.warning("%s ended its process (%s)", call, crash.how, extra={"action": "media_crashed"})
                    if attempt == _ATTEMPTS:
                        raise
                else:
                    self._keep(process)
                    return _said(answer), made
        raise AssertionError("the last attempt returns or raises")

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                process.end()
        return _Process(self._program)

    def _keep(self, process: _Process) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        process.end()


def shared_processes() -> MediaProcesses:
    """The media processes of this process, ended with it."""
    return _processes_of(os.getpid())


@cache
def _processes_of(_process_id: int) -> MediaProcesses:
    # By the id: after a fork, two processes on one channel would take each other's answers.
    processes = MediaProcesses()
    atexit.register(processes.close)
    return processes


class _Crashed(Exception):
    """A process ended without an answer."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class _Process:
    """One process, and the channel to it."""

    def __init__(self, program: str) -> None:
        self._channel, theirs = pair()
        # A new program, never a fork: this process has threads, and a device context that no fork survives.
        command = [sys.executable, "-P", "-m", program, str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, header: dict[str, Any], buffers: Sequence[Buffer], seconds: float
    ) -> tuple[dict[str, Any], list[Buffer]]:
        """Return the answer. Raises _Crashed, OutOfMemory where the kernel ended it, TimeoutError after `seconds`."""
        self._channel.settimeout(seconds)
        try:
            send(self._channel, header, buffers)
            return receive(self._channel)
        except ChannelClosed as error:
            raise self._crash(header["field"]) from error
        except BaseException:
            self._process.kill()
            self.end()
            raise

    def end(self) -> None:
        """Let it end, by closing its channel."""
        self._channel.close()
        try:
            self._process.wait(_SPARE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _crash(self, field: str | None) -> OmnifleetError | _Crashed:
        self.end()
        code = self._process.returncode
        if code == -signal.SIGKILL:  # which nobody but the kernel sends it
            return OutOfMemory("a decoder was ended by the system, which had no memory left", field)
        with suppress(ValueError):
            return _Crashed(signal.Signals(-code).name)
        return _Crashed(f"exit code {code}")


def _is_plain(data: bytes, field: str, form: AudioForm) -> bool:
    """Whether it is an uncompressed wav file, which is read without a decoder."""
    return not form.get("track") and read_wav(data, field) is not None


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise rebuild_error(answer["error"], answer["arguments"])
    if "failed" in answer:
        raise RuntimeError(f"a media process failed: {answer['failed']}")
    said: dict[str, Any] = answer["said"]
    return said


def _array(made: Sequence[Buffer]) -> NDArray[Any]:
    return np.asarray(made[0])


def _bytes(made: Sequence[Buffer]) -> bytes:
    return bytes(made[0]) if isinstance(made[0], bytes) else made[0].tobytes()
