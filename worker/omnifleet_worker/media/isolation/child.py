"""The process that decodes and encodes: it does what it is told, one file at a time, until the worker is gone."""

from __future__ import annotations

import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnifleet_shared.errors import MediaTooLarge, OmnifleetError

from omnifleet_worker.media.isolation.channel import Buffer, ChannelClosed, receive, send
from omnifleet_worker.media.limits import MediaLimits

Answer = tuple[dict[str, Any], list[Buffer]]


def decode_audio(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.decode.decode_audio`."""
    from omnifleet_worker.media.decode import decode_audio

    audio = decode_audio(buffers[0], limits=limits, **options)
    said = {"sample_rate": audio.sample_rate, "places": audio.places, "lossy": audio.lossy}
    return said, [audio.samples]


def decode_video(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.video.decode_video`."""
    from omnifleet_worker.media.video import decode_video

    video = decode_video(buffers[0], limits=limits, **options)
    return {"frames_per_second": video.frames_per_second, "seconds": video.seconds}, [video.frames]


def why_not_muxed(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.mux.why_not_muxed`."""
    from omnifleet_worker.media.mux import why_not_muxed

    return {"reason": why_not_muxed(buffers[0], limits=limits, **options)}, []


def mux(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.mux.mux`."""
    from omnifleet_worker.media.mux import mux

    muxed = mux(*buffers, limits=limits, **options)
    return {"format": muxed.format, "seconds": muxed.seconds}, [muxed.data]


def encode_audio(buffers: Sequence[Any], _limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.encode.encode_audio`; it has no limits."""
    from omnifleet_worker.media.encode import encode_audio

    return {}, [encode_audio(buffers[0], **options)]


def encode_samples(buffers: Sequence[Any], _limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.encode.encode_samples`; it has no limits."""
    from omnifleet_worker.media.encode import encode_samples

    return {}, [encode_samples(buffers[0], **options)]


def measure_audio(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.measure.measure_audio`."""
    from omnifleet_worker.media.measure import measure_audio

    return {"bytes": measure_audio(buffers[0], limits=limits, **options)}, []


def measure_video(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> Answer:
    """See `media.measure.measure_video`."""
    from omnifleet_worker.media.measure import measure_video

    return {"bytes": measure_video(buffers[0], limits=limits, **options)}, []


CALLS: dict[str, Callable[[Sequence[Any], MediaLimits, dict[str, Any]], Answer]] = {
    call.__name__: call
    for call in (
        *(decode_audio, decode_video, measure_audio, measure_video),
        *(why_not_muxed, mux, encode_audio, encode_samples),
    )
}
"""What it can do, by name. Libraries are loaded with the first file that needs them."""


def serve(channel: socket.socket) -> None:
    """Answer calls until the other side is gone."""
    while True:
        try:
            header, buffers = receive(channel)
            answer, made = _answer(header, buffers)
            # Before the answer: what it holds is not to be kept while the next call is waited for.
            del buffers
            send(channel, answer, made)
            del made
        except ChannelClosed:
            return


def _answer(header: dict[str, Any], buffers: list[Buffer]) -> Answer:
    limits = MediaLimits(**header["limits"])
    _limit_memory(limits)
    try:
        said, made = CALLS[header["call"]](buffers, limits, header["options"])
    except OmnifleetError as error:
        return {"error": type(error).__name__, "arguments": list(error.args)}, []
    except MemoryError:
        refusal = MediaTooLarge("it takes more memory than is allowed", header["field"], "Send a shorter part of it")
        return {"error": type(refusal).__name__, "arguments": list(refusal.args)}, []
    except Exception:
        return {"failed": traceback.format_exc()[-10_000:]}, []
    return {"said": said}, made


def _limit_memory(limits: MediaLimits) -> None:
    """Allow the file twice, three copies of what is decoded, and what the libraries reserve and decoders need."""
    allowed = 2 * limits.max_bytes + 3 * limits.max_decoded_bytes + 2 * 1024**3
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (allowed if most == resource.RLIM_INFINITY else min(allowed, most), most))


def main() -> None:
    """Serve the channel whose descriptor is the first argument."""
    # Signals to the whole group are the worker's to act on: its running jobs still need this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Where memory is short the kernel may rather end this process than the worker with the model.
    Path("/proc/self/oom_score_adj").write_text("500")
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel)


if __name__ == "__main__":
    main()
