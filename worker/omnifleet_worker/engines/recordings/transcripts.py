"""What a recogniser makes of a job: a recording transcribed, with times where the job asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

from omnifleet_shared.errors import InvalidJob, LanguageNotSupported, TaskNotSupported
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.tasks import NamedUnderstanding
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript

from ...engine.request import Request
from ...jobs.inputs import JobMedia, can_transcribe_in_parts
from ...jobs.job_context import JobContext
from ...jobs.streaming.job_stream import JobStream
from ...jobs.timestamps.pauses import find_speech
from ...jobs.timestamps.transcripts import SEGMENT_SECONDS, TimedTranscript, cut_segments
from ...jobs.transcripts import following, join_parts
from ...media.signal import split_at_pauses
from ...models.recording_model import RecordingInputs
from ...models.speech_model import Samples
from ..described_model import DescribedModel
from .recogniser import PART_SECONDS, RATE, HeardSpeech, SpeechRecogniser


@dataclass(frozen=True)
class _Heard:
    """A stretch of the recording, and what was heard in it."""

    samples: range
    speech: HeardSpeech

    @property
    def words(self) -> list[HeardWord]:
        """Its words with their times in the whole recording."""
        start, end = self.samples.start / RATE, _seconds(self.samples.stop)
        times = [(word.text, _round(start + word.start), _round(start + word.end)) for word in self.speech.words]
        return [HeardWord(text=text, start=min(first, end), end=min(last, end)) for text, first, last in times]


class Transcriber(DescribedModel):
    """See `JobModel`.

    Args:
        capabilities: of the model; `understand.transcribe` is all that is done of its tasks.
        model: recognises stretches.
        precision: what it computes in, and where.
    """

    def __init__(self, capabilities: Capabilities, model: SpeechRecogniser, *, precision: str) -> None:
        super().__init__(capabilities, precision=precision)
        self._model = model

    def validate_job(self, job: Job) -> None:
        """Refuse a job that the model cannot do. Raises as `Capabilities`, and for what a recogniser does not heed."""
        super().validate_job(job)
        task, name = job.task, self.card.name
        if not can_transcribe_in_parts(task):
            raise InvalidJob(f"{name} transcribes one recording", "audio", "Send one alone, and no video")
        for field in ("text", "system", "history"):
            if getattr(task, field):
                raise InvalidJob(f"{name} hears what is said, whatever it is told of it", field, "Leave it out")
        if task.timestamps == "word" and not self._model.times_words:
            raise TaskNotSupported(f"{name} does not tell when words are said", "timestamps", "Ask for segments")
        known = self._model.languages
        if job.language is not None and known and job.language not in known:
            raise LanguageNotSupported(f"{name} knows no language {job.language!r}", "language", "Use another model")

    def run(self, context: JobContext, media: JobMedia) -> str | TimedTranscript:
        """Transcribe the job's recording. Raises the engine's typed errors."""
        task = context.job.task
        assert isinstance(task, NamedUnderstanding), "others are refused before they run"
        wave, timed = media.mono("audio", RATE), task.timestamps is not None and self._model.times_words
        by_pauses = task.timestamps is not None and not timed
        stretches = find_speech(wave, RATE, SEGMENT_SECONDS) if by_pauses else _parts(wave)
        stream = context.stream if task.timestamps is None else None  # times come with all of the text
        heard = self._hear(context, wave, stretches, stream, timed=timed)
        if stream is not None:
            return stream.text
        text = join_parts([one.speech.text for one in heard])
        if task.timestamps is None:
            return text
        words = [word for one in heard for word in one.words]
        segments = cut_segments(text, words) if timed else _by_pauses(heard)
        transcript = Transcript(
            seconds=_seconds(len(wave)),
            words=tuple(words) if task.timestamps == "word" else None,
            segments=tuple(segments),
            language=next((one.speech.language for one in heard), None),
        )
        return TimedTranscript(text, transcript)

    def _hear(
        self,
        context: JobContext,
        wave: Samples,
        stretches: Sequence[range],
        stream: JobStream | None,
        *,
        timed: bool,
    ) -> list[_Heard]:
        """Hear the stretches; where nobody said in which language, all are heard in that of the first."""
        context.plan_steps(len(stretches), 1)
        language, heard = context.job.language, list[HeardSpeech]()
        alone = 1 if language is None and self._model.languages else 0
        for group in (stretches[:alone], stretches[alone:]):
            inputs = [RecordingInputs(wave=wave[one.start : one.stop], language=language, timed=timed) for one in group]
            if not inputs:
                continue
            watch = None if stream is None else partial(_give_out, stream, len(heard))
            heard += [HeardSpeech.decode(str(one)) for one in context.work_all(inputs, watch)]
            language = language or next((one.language for one in heard), None)
        return [_Heard(samples, speech) for samples, speech in zip(stretches, heard, strict=True)]


def _give_out(stream: JobStream, before: int, requests: Sequence[Request]) -> None:
    """Give out the text of each stretch that is heard, as are those before it; none that an earlier attempt gave out.

    Args:
        stream: of the job.
        before: stretches that come before those of the requests.
        requests: of stretches.
    """
    for request in requests[len(stream.texts) - before :]:
        if not request.outcome.done():
            return
        stream.add_text(following(stream.text, HeardSpeech.decode(str(request.outcome.result())).text))


def _parts(wave: Samples) -> list[range]:
    """Stretches as long as the model hears at once, less those in which nobody speaks."""
    lengths = [len(part) for part in split_at_pauses(wave, RATE, PART_SECONDS)]
    parts = [range(start, stop) for start, stop in pairwise(accumulate(lengths, initial=0))]
    return [part for part in parts if find_speech(wave[part.start : part.stop], RATE, PART_SECONDS)]


def _by_pauses(heard: Sequence[_Heard]) -> list[HeardSegment]:
    return [
        HeardSegment(text=one.speech.text, start=_seconds(one.samples.start), end=_seconds(one.samples.stop))
        for one in heard
        if one.speech.text
    ]


def _seconds(samples: int) -> float:
    return _round(samples / RATE)


def _round(seconds: float) -> float:
    """To the millisecond, which is finer than any recogniser hears."""
    return round(seconds, 3)
