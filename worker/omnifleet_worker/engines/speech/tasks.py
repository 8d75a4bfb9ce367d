"""What a model that only speaks makes of a job: a text said, in a voice where it takes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from omnifleet_shared.audio_formats import check_format
from omnifleet_shared.errors import MediaTooLong
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.schema.jobs import GenerateJob, Job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.tasks import Speech

from ...engine.request import Request
from ...jobs.inputs import JobMedia
from ...jobs.job_context import JobContext
from ...jobs.speech_parts import join_speech, split_text, streamed_speech
from ...jobs.tasks import SpokenText
from ...media.signal import to_mono, trim_silence
from ...models.speech_model import ReferenceVoice, Samples, SpeechInputs, SpeechModel
from .live_speech import LiveSpeech


class SpeechTasks:
    """See `JobModel`.

    Args:
        capabilities: of the model; `generate.tts` is all that is done of its tasks.
        model: speaks.
        precision: what it computes in, and where.
        most_text: characters that it says well in one go; a longer text is cut at its sentences, and said in parts.
    """

    keeps_voices = False

    def __init__(self, capabilities: Capabilities, model: SpeechModel, *, precision: str, most_text: int) -> None:
        self.capabilities = capabilities
        self.card = _card(capabilities)
        self.precision = precision
        self._model = model
        self._most_text = most_text

    def validate_job(self, job: Job) -> None:
        """Refuse a job that the model cannot do. Raises as `Capabilities`, and InvalidJob for a format."""
        self.capabilities.validate_job(job)
        if isinstance(job, GenerateJob):
            check_format(job.format, self._model.sample_rate, 1)

    def run(self, context: JobContext, media: JobMedia) -> SpokenText:
        """Say the job's text. Raises the engine's typed errors, and MediaTooLong for a voice."""
        task = context.job.task
        assert isinstance(task, Speech)
        parts = [part for part in split_text(task.text, lambda part: len(part) <= self._most_text) if part.strip()]
        voice, rate = self._voice(task, media), self._model.sample_rate
        context.plan_steps(len(parts), self._model.most_steps)
        live = None if context.stream is None else LiveSpeech(context.stream, rate)
        (clip,) = self._speak(context, parts[:1], voice, live and live.watch)
        if live is not None:
            live.finish(clip, None if len(parts) == 1 else parts[0])
        if len(parts) == 1:
            return SpokenText(clip, rate)
        first = trim_silence(clip, rate)
        if voice is None and self.capabilities.cloning:
            voice = ReferenceVoice(wave=first[0], sample_rate=rate, text=parts[0].strip())
        if live is not None:
            return SpokenText(self._stream(context, parts, first, voice), rate)
        others = [trim_silence(clip, rate) for clip in self._speak(context, parts[1:], voice)]
        return SpokenText(join_speech([first, *others], parts, rate), rate)

    def _stream(
        self, context: JobContext, parts: Sequence[str], first: Samples, voice: ReferenceVoice | None
    ) -> Samples:
        """Speak the parts after the first one by one, and give each out as it is done."""
        rate, pieces = self._model.sample_rate, [first]
        for number, part in enumerate(parts[1:], 1):
            clip = trim_silence(self._speak(context, [part], voice)[0], rate)
            pieces.append(streamed_speech(clip, first, part, rate, is_last=number == len(parts) - 1))
            context.give_out(pieces[-1], rate)
        return np.concatenate(pieces, axis=1)

    def _speak(
        self,
        context: JobContext,
        parts: Sequence[str],
        voice: ReferenceVoice | None,
        watch: Callable[[Sequence[Request]], None] | None = None,
    ) -> list[Samples]:
        job, steps = context.job, self._model.most_steps
        return context.speak_all(
            [
                SpeechInputs(text=part.strip(), language=job.language, voice=voice, most_steps=steps, seed=job.seed)
                for part in parts
            ],
            watch,
        )

    def _voice(self, task: Speech, media: JobMedia) -> ReferenceVoice | None:
        """The recording's last seconds, as many as the model hears."""
        if not media.has("ref"):
            return None
        recording, heard = to_mono(media.recording("ref")), self.capabilities.voice_seconds
        wave, rate = recording.samples[0].astype(np.float32, copy=False), recording.sample_rate
        if heard is not None and recording.seconds > heard:
            if task.ref_text is not None:
                problem = f"{recording.seconds:.1f} s are more than the {heard:g} s that {self.card.name} hears"
                raise MediaTooLong(problem, "ref", "Send a shorter recording with its text, or leave ref_text out")
            wave = wave[-round(heard * rate) :]
        return ReferenceVoice(wave=wave, sample_rate=rate, text=task.ref_text)


def _card(capabilities: Capabilities) -> ModelCard:
    """The card, for the limits of what is decoded."""
    return ModelCard(
        **capabilities.model_dump(include={"name", "licence", "commercial_use"}),
        revision=capabilities.revision or "unknown",
        parts=capabilities.parts,
        languages=tuple({code for task in capabilities.tasks.values() for code in task.languages or ()}),
        tasks=tuple(capabilities.tasks),
    )
