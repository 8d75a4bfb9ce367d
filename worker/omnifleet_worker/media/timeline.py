"""Where decoded sound belongs in time: gaps in a file's timestamps and late beginnings are silence."""

from __future__ import annotations

from av.audio.frame import AudioFrame

from omnifleet_worker.media.limits import PADDING_SAMPLES
from omnifleet_worker.media.reader import MediaReader

# Timestamps are rounded and jump about: to a millisecond in webm, by some more where a browser recorded it. What
# they are ahead of the samples becomes silence from here on, in seconds; it is what ffmpeg's aresample takes too.
_GAP = 0.1
_LATE_START = 0.01


class Timeline:
    """Places frames one after the other, and counts the samples that they and the silence between them make.

    Args:
        reader: the file that the frames are of.
    """

    def __init__(self, reader: MediaReader) -> None:
        self._origin = reader.origin
        self._end = _end(reader)
        self._begin: float | None = None
        self._rate = 0
        self.samples = 0
        """Samples of each channel until now, silence included."""

    @property
    def seconds(self) -> float:
        """Length until now, in seconds."""
        return self.samples / self._rate if self._rate else 0.0

    def place(self, frame: AudioFrame, samples: int) -> tuple[int, int]:
        """Place the next samples of the stream.

        Returns:
            Samples of silence before them, and how many of them are kept: padding beyond the file's end is not.
        """
        self._rate = frame.sample_rate
        time = frame.time
        silence = 0 if time is None else self._silence_before(time, frame.sample_rate)
        self.samples += silence
        kept = self._within_end(samples)
        self.samples += kept
        return silence, kept

    def _silence_before(self, time: float, rate: int) -> int:
        if self._begin is None:
            late = max(0.0, time - self._origin) if self._origin is not None else 0.0
            self._begin = time - late if late >= _LATE_START else time
            return round(late * rate) if late >= _LATE_START else 0
        ahead = time - self._begin - self.samples / rate
        if ahead < -_GAP:  # the timestamps begin again, as where files are joined
            self._begin = time - self.samples / rate
        return round(ahead * rate) if ahead > _GAP else 0

    def _within_end(self, samples: int) -> int:
        if self._end is None:
            return samples
        beyond = self.samples + samples - round(self._end * self._rate)
        return samples - beyond if 0 < beyond <= min(samples, PADDING_SAMPLES) else samples


def _end(reader: MediaReader) -> float | None:
    """The end of the sound in seconds from its origin, where the file tells it to the sample."""
    stream = reader.stream
    if not reader.declares_end or stream.duration is None or stream.time_base is None:
        return None
    start = (stream.start_time or 0) if reader.origin is not None else 0
    return float((start + stream.duration) * stream.time_base)
