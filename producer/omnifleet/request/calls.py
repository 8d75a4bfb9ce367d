"""The calls that all clients have in common, whether they block or are awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

from omnifleet_shared.schema.tasks import Loudness, Timestamps

from .build import DiffusionOptions, GenerateOptions, HistoryTurn, UnderstandOptions
from .request import Request
from .uploads import MediaSource

TextJob = TypeVar("TextJob")
AudioJob = TypeVar("AudioJob")


class Calls(ABC, Generic[TextJob, AudioJob]):
    """The calls of the model's three namespaces. Clients decide what they return: handles, or coroutines of them."""

    def understand(
        self,
        task: str | None = None,
        audio: MediaSource | Sequence[MediaSource] | None = None,
        *,
        video: MediaSource | Sequence[MediaSource] | None = None,
        text: str | None = None,
        question: str | None = None,
        system: str | None = None,
        max_new_tokens: int | None = None,
        history: Sequence[HistoryTurn] | None = None,
        timestamps: Timestamps | None = None,
        **options: Unpack[UnderstandOptions],
    ) -> TextJob:
        """Ask about audio, video or text.

        Args:
            task: a single word names a task (transcribe, caption, qa, classify, sources, scene, speakers, gender,
                sarcasm, feedback); anything longer is a free question.
            audio: one recording or up to 8.
            video: one video or up to 4, of which only the frames are seen; give it as `audio` too to have it heard.
            text: what the named task takes, such as the question of `qa`.
            question: a free question, where a single word is one.
            system: system prompt; the checkpoint's own by default.
            max_new_tokens: longest answer, 1 to 4096; 512 by default.
            history: earlier turns of the conversation, `("user", ...)` and `("assistant", ...)` alternately, an answer
                last. Audio and video belong to the first turn.
            timestamps: transcribe: `word` for the time of every word, as `result().words`, by workers with an aligner;
                `segment` for that of what is said between pauses, as `result().segments`. Of one recording alone.
            options: temperature, stream, seed, language, audio_track, priority, deadline, commercial, idempotency_key,
                callback; see `UnderstandOptions`.

        Raises:
            InvalidJob, UnknownTask, TaskNotSupported, LanguageNotSupported, LicenceRefused: the request.
            CallbackRefused: its callback; where this process does not know the allow list, the job fails with it.
            MediaError, ForeignURI: the media; `field` names the argument.
            StorageUnavailable, StorageRefused, BrokerUnavailable: the fleet.
            QueueFull: too much waits; `details["retry_after"]` says in how many seconds to come back.
            QuotaExceeded: the tenant has used its GPU-seconds of the day; likewise.
        """
        media, question_fields = {"audio": audio, "video": video}, {"text": text, "question": question}
        limits = {"system": system, "max_new_tokens": max_new_tokens, "history": history, "timestamps": timestamps}
        request = Request.of("understand", options, task=task, **media, **question_fields, **limits)
        job: TextJob = self._submit(request)
        return job

    def generate(
        self,
        task: str,
        text: str | None = None,
        *,
        ref: MediaSource | None = None,
        ref_text: str | None = None,
        audio: MediaSource | None = None,
        video: MediaSource | None = None,
        seconds: float | None = None,
        speed: float | None = None,
        mux: bool | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AudioJob:
        """Make audio.

        Args:
            task: t2a, t2m (sound or music from text), v2a, v2m (for a video), tts (speech), vc (voice conversion).
            text: the description; for tts and vc what is said.
            ref: tts, vc: a recording of the voice to speak with, or `voice:anna`, one of `Client.voices`.
            ref_text: what is said in `ref`; the text of the voice, where one is named.
            audio: vc: the speech to convert.
            video: v2a, v2m: the video to make sound for.
            seconds: length; 10 by default, for v2a and v2m that of the video. tts: as long as the model takes to say
                the text by default, and only by models that can be told.
            speed: tts, in place of `seconds`: 0.25 to 4, how fast the text is said, only by models that can be told; 1
                by default.
            mux: v2a, v2m: True to have the video with the new sound too, as `result().video`.
            options: adapter, adapter_scale, steps, quality, guidance, stream, seed, format, language, audio_track,
                priority, deadline, commercial, idempotency_key, callback; see `GenerateOptions`.

        Raises:
            AdapterNotFound: there is no such adapter.
            OmnifleetError: the errors of `understand`.
        """
        media = {"ref": ref, "audio": audio, "video": video}
        fields = {"text": text, "ref_text": ref_text, "seconds": seconds, "speed": speed, "mux": mux}
        job: AudioJob = self._submit(Request.of("generate", options, task=task, **media, **fields))
        return job

    @overload
    def edit(
        self,
        task: str,
        audio: MediaSource,
        *,
        desc: str | None = None,
        source: str | None = None,
        target: str | None = None,
        span: tuple[float, float] | str | None = None,
        text: str | None = None,
        dry_run: Literal[False] | None = None,
        loudness: Loudness | None = None,
        channels: int | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> AudioJob: ...

    @overload
    def edit(
        self,
        task: str,
        audio: MediaSource,
        *,
        desc: str | None = None,
        source: str | None = None,
        target: str | None = None,
        span: tuple[float, float] | str | None = None,
        text: str | None = None,
        dry_run: Literal[True],
        loudness: Loudness | None = None,
        channels: int | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> TextJob: ...

    @overload
    def edit(
        self,
        task: str,
        audio: MediaSource,
        *,
        desc: str | None = None,
        source: str | None = None,
        target: str | None = None,
        span: tuple[float, float] | str | None = None,
        text: str | None = None,
        dry_run: bool | None,
        loudness: Loudness | None = None,
        channels: int | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> TextJob | AudioJob: ...

    def edit(
        self,
        task: str,
        audio: MediaSource,
        *,
        desc: str | None = None,
        source: str | None = None,
        target: str | None = None,
        span: tuple[float, float] | str | None = None,
        text: str | None = None,
        dry_run: bool | None = None,
        loudness: Loudness | None = None,
        channels: int | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> TextJob | AudioJob:
        """Change audio.

        Args:
            task: add, remove, extract, style or speech.
            audio: what to change.
            desc: add, remove, extract: the sound; speech: the instruction.
            source: style: the sound that is there.
            target: style: the sound to make of it.
            span: speech, in place of `desc`: seconds between which `text` is said instead of the words that are said
                there, or `"1.5-2.75"`; a word belongs to it whose middle does. Where there is none `text` is inserted.
            text: speech: the words to say in `span`; without any, those in it are deleted.
            dry_run: speech: True to have nothing made. The job hears the words, finds when they are said and what would
                change, and its result has that as `plan`. Jobs that would fail fail as they would.
            loudness: all but speech: `source` (default) leaves what is kept as loud as it was, in its place between
                left and right; `peak` gives what the published model does, with a peak of full scale.
            channels: all but speech: 1 for a mono result; stereo by default.
            options: adapter, adapter_scale, steps, quality, guidance, seed, format, language, audio_track, priority,
                deadline, commercial, idempotency_key, callback; see `DiffusionOptions`.

        Raises:
            EditAmbiguous: as the job's result: `desc` of speech can be read in several ways.
            AdapterNotFound: there is no such adapter.
            OmnifleetError: the errors of `understand`.
        """
        fields = {"desc": desc, "source": source, "target": target, "span": span, "text": text}
        sound = {"loudness": loudness, "channels": channels}
        request = Request.of("edit", options, task=task, audio=audio, dry_run=dry_run or None, **fields, **sound)
        job: TextJob | AudioJob = self._submit(request)
        return job

    @abstractmethod
    def _submit(self, request: Request) -> Any:
        """Make a job of the request and send it."""


class _Recorder(Calls[Request, Request]):
    """Makes requests alone: the calls of a batch, of which nothing is checked yet."""

    def _submit(self, request: Request) -> Request:
        return request


_recorder = _Recorder()
understand = _recorder.understand
generate = _recorder.generate
edit = _recorder.edit
