"""What a model that only speaks makes of a job: a text said, in a voice where it takes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from omnifleet_shared.audio_formats import check_format
from omnifleet_shared.errors import InvalidJob, MediaTooLong, TaskNotSupported
from omnifleet_shared.schema.capabilities import Capabilities, LicensedPart, TaskCapability
from omnifleet_shared.schema.jobs import GenerateJob, Job
from omnifleet_shared.schema.tasks import Speech, SpeechEdit, VoiceConversion

from ...engine.request import Request
from ...jobs.inputs import JobMedia
from ...jobs.job_context import JobContext
from ...jobs.speech_edit.plan import PlannedRecording
from ...jobs.speech_edit.speech_editor import EditedRecording, edit_speech, plan_speech_edit
from ...jobs.speech_edit.words import join_words
from ...jobs.speech_parts import join_speech, split_text, streamed_speech
from ...jobs.tasks import SpokenText
from ...media.decode import DecodedAudio
from ...media.signal import resample, to_mono, trim_silence
from ...models.speech_model import ReferenceVoice, Samples, SpeechInputs, SpeechModel
from ..described_model import DescribedModel
from .live_speech import LiveSpeech
from .recogniser import RATE, Recogniser, recognise_parts
from .word_edits.editing import SpeechModelEditing
from .word_edits.word_synthesiser import SpeakingModel


class SpeechTasks(DescribedModel):
    """See `JobModel`.

    Args:
        capabilities: of the model; `generate.tts` is all that is done of its tasks.
        model: speaks.
        precision: what it computes in, and where.
        most_text: characters that it says well in one go; a longer text is cut at its sentences, and said in parts.
        recogniser: hears recordings, so that they can be said in another voice, and their words be changed.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        model: SpeechModel,
        *,
        precision: str,
        most_text: int,
        recogniser: Recogniser | None = None,
    ) -> None:
        if recogniser is not None:
            capabilities = _with_recogniser(capabilities, recogniser.card)
        super().__init__(capabilities, precision=precision)
        self._model = model
        self._most_text = most_text
        self._recogniser = recogniser

    def with_recogniser(self, recogniser: Recogniser) -> SpeechTasks:
        """Copy it with a recogniser, with which a model that clones voices converts speech and edits words too."""
        about = (self.capabilities, self._model)
        return SpeechTasks(*about, precision=self.precision, most_text=self._most_text, recogniser=recogniser)

    def validate_job(self, job: Job) -> None:
        """Refuse a job that the model cannot do. Raises as `Capabilities`, and InvalidJob for a format."""
        if (
            self.capabilities.cloning
            and self._recogniser is None
            and isinstance(job.task, SpeechEdit | VoiceConversion)
        ):
            remedy = "Start the worker with OMNIFLEET_RECOGNISER, the folder of a speech recogniser"
            raise TaskNotSupported(f"this worker of {self.card.name} hears nothing", "task", remedy)
        super().validate_job(job)
        if isinstance(job.task, Speech) and job.task.seconds is not None and len(self._parts(job.task.text)) > 1:
            problem = f"{self.card.name} says a text of more than {self._most_text} characters in parts"
            raise InvalidJob(problem, "seconds", "Ask for a speed, or send a shorter text")
        if isinstance(job, GenerateJob):
            check_format(job.format, self._model.sample_rate, 1)

    def run(self, context: JobContext, media: JobMedia) -> SpokenText | EditedRecording | PlannedRecording:
        """Say the job's text, or edit its words. Raises the engine's typed errors, and MediaTooLong for a voice."""
        match context.job.task:
            case SpeechEdit() as task:
                edit_or_plan = plan_speech_edit if task.dry_run else edit_speech
                return edit_or_plan(context, task, media.recording("audio"), self._editing(context.job))
            case VoiceConversion() as task:
                text = task.text or self._heard(context, media.recording("audio"), "audio")
                return self._say(context, task, text, media)
            case Speech() as task:
                return self._say(context, task, task.text, media)
            case task:
                raise AssertionError(f"a job for {task.name} is refused before it runs")

    def _say(self, context: JobContext, task: Speech | VoiceConversion, text: str, media: JobMedia) -> SpokenText:
        parts = self._parts(text)
        voice, rate = self._voice(context, task, media), self._model.sample_rate
        context.plan_steps(len(parts), self._model.most_steps)
        live = None if context.stream is None else LiveSpeech(context.stream, rate)
        (clip,) = self._speak(context, parts[:1], voice, None if live is None else live.watch)
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

    def _parts(self, text: str) -> list[str]:
        return [part for part in split_text(text, lambda part: len(part) <= self._most_text) if part.strip()]

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
        job, steps, pace = context.job, self._model.most_steps, _pace(context.job)
        about: dict[str, Any] = {"language": job.language, "voice": voice, "most_steps": steps, "seed": job.seed}
        return context.speak_all([SpeechInputs(text=part.strip(), **about, **pace) for part in parts], watch)

    def _voice(self, context: JobContext, task: Speech | VoiceConversion, media: JobMedia) -> ReferenceVoice | None:
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
        text = task.ref_text
        if text is None and self._recogniser is not None:
            text = self._heard(context, DecodedAudio(wave[None], rate), "ref")
        return ReferenceVoice(wave=wave, sample_rate=rate, text=text)

    def _heard(self, context: JobContext, recording: DecodedAudio, field: str) -> str:
        """What is said in a recording. Raises InvalidJob where that is nothing."""
        assert self._recogniser is not None, "a model without one does no task that needs it"
        wave = resample(to_mono(recording), RATE).samples[0].astype(np.float32, copy=False)
        words = recognise_parts(context, self._recogniser, wave, context.job.language)
        if not words:
            known_as = "ref_text" if field == "ref" else "text"
            raise InvalidJob("no words are heard in it", field, f"Send clear speech, or what it says as {known_as}")
        return join_words([word.text for word in words])

    def _editing(self, job: Job) -> SpeechModelEditing:
        assert self._recogniser is not None, "a model without one edits no words"
        speaking = SpeakingModel(
            sample_rate=self._model.sample_rate,
            most_steps=self._model.most_steps,
            most_text=self._most_text,
            voice_seconds=self.capabilities.voice_seconds,
        )
        return SpeechModelEditing(speaking, self._recogniser, job.language)


def _pace(job: Job) -> dict[str, Any]:
    task = job.task
    return {"speed": task.speed, "seconds": task.seconds} if isinstance(task, Speech) else {}


def _with_recogniser(capabilities: Capabilities, recogniser: Capabilities) -> Capabilities:
    """What a model that clones voices can do beside a recogniser, whose licence counts as that of a part."""
    speaks = capabilities.tasks.get("generate.tts", TaskCapability())
    hears = {code for task in recogniser.tasks.values() for code in task.languages or ()}
    both = speaks.languages
    if hears:
        both = tuple(sorted(hears)) if both is None else tuple(code for code in both if code in hears)
    part = LicensedPart(
        name=f"speech recogniser ({recogniser.name})", licence=recogniser.licence, commercial_use=recogniser.commercial
    )
    able = speaks.model_copy(update={"languages": both})
    tasks = {**capabilities.tasks, "generate.vc": able, "edit.speech": able}
    return capabilities.model_copy(
        update={"tasks": tasks, "parts": (*capabilities.parts, part), "needs_transcript": False}
    )
