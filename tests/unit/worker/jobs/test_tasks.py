"""What every task asks of the model, held to docs/model.md's table, with a run that answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pytest
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported, OmnifleetError, TaskNotSupported
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.tasks import NamedQuestion
from omnifleet_worker.jobs.inputs import JobMedia
from omnifleet_worker.jobs.job_context import Clip
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.sound_edit.sound_editor import EditedSound
from omnifleet_worker.jobs.speech import join_transcript
from omnifleet_worker.jobs.tasks import OmniModel, run_task
from omnifleet_worker.media.decode import DecodedAudio
from omnifleet_worker.media.video import DecodedVideo
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.audio_omni.tiny import tiny_vocab
from omnifleet_worker.models.content_cache import ContentCache

RATE = 44_100
FILE = {"uri": "file:///storage/x"}
SENTENCES = {
    "system": {name: f"system {name}" for name in ("T2A", "T2M", "TTS", "EDITING", "UNDERSTANDING")},
    "edit": {
        "Add": "put {desc} in",
        "Remove": "take {desc} out",
        "Extract": "keep {desc}",
        "Style": "{source} to {target}",
    },
    "transcribe": {"system": "system transcribe", "user": "user transcribe"},
}
CARD = ModelCard(name="a model", revision="1", licence="none", languages=("en", "zh"))


@dataclass
class FakeRun:
    """Answers at once, and keeps what it was asked."""

    job: Job
    clip: np.ndarray = field(default_factory=lambda: np.ones((2, CLIP_SAMPLES), np.float32))
    answer: str = "an answer"
    asked: list[tuple[Chat, int]] = field(default_factory=list)
    sampled: list[tuple[Chat, dict[str, Any]]] = field(default_factory=list)
    stream: None = None

    def ask(self, chat: Chat, max_new_tokens: int = 512) -> str:
        self.asked.append((chat, max_new_tokens))
        return self.answer

    def sample(self, prompt: Chat, **inputs: Any) -> np.ndarray:
        self.sampled.append((prompt, {name: value for name, value in inputs.items() if value is not None}))
        return self.clip

    def sample_all(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        return [self.sample(one.prompt, speech=one.speech, audio=one.audio, video=one.video) for one in clips]

    def give_out(self, samples: np.ndarray) -> None: ...

    def plan(self, clips: int) -> None: ...

    def expect_parts(self, count: int) -> None: ...


def run_of(namespace: str, **task: Any) -> FakeRun:
    return FakeRun(read_job({"schema_version": 1, "namespace": namespace, "task": task}))


def recording(seconds: float, rate: int = RATE, channels: int = 1) -> DecodedAudio:
    ramp = np.linspace(-0.5, 0.5, round(seconds * rate), dtype=np.float32)
    return DecodedAudio(np.tile(ramp, (channels, 1)), rate)


def media(**audio: DecodedAudio) -> JobMedia:
    return JobMedia({name: (one,) for name, one in audio.items()}, ())


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return OmniModel(card=CARD, prompts=Prompts(SENTENCES), tokenizer=SpeechTokenizer(tiny_vocab()))


def chat_text(system: str, user: str) -> str:
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t2a", "a dog barks", "a dog barks."),
        ("t2m", "a calm piano", "a calm piano."),
        ("t2a", "a dog barks.", "a dog barks.."),
        ("t2a", "{braces} {0}", "{braces} {0}."),
    ],
)
def test_sound_is_asked_for_with_a_full_stop_even_after_one(model: OmniModel, name: str, text: str, said: str) -> None:
    run = run_of("generate", name=name, text=text, seconds=2.5)

    clip = run_task(run, media(), model)

    ((prompt, inputs),) = run.sampled
    assert prompt.text == chat_text(f"system {name.upper()}", said)
    assert inputs == {"index": 0}
    assert clip.shape == (2, round(2.5 * RATE))


def test_speech_goes_beside_an_empty_user_text(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text="Hello {world}")

    run_task(run, media(), model)

    ((prompt, inputs),) = run.sampled
    assert prompt.text == chat_text("system TTS", "")
    assert inputs == {"speech": "Hello {world}"}
    assert run.asked == []


def test_speech_begins_and_ends_with_sound(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text="Hello")
    run.clip = np.zeros((2, CLIP_SAMPLES), np.float32)
    run.clip[:, RATE : 2 * RATE] = 0.5

    clip = run_task(run, media(), model)

    assert clip.shape == (2, RATE)


def test_a_voice_is_the_last_six_seconds_and_its_own_words_are_cut_off(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text="Hello", ref=FILE, ref_text="Good day")
    voice = recording(8.0)

    clip = run_task(run, media(ref=voice), model)

    ((prompt, inputs),) = run.sampled
    assert prompt.text == chat_text("system TTS", "")
    assert inputs["speech"] == "Good day. Hello"
    assert np.array_equal(inputs["audio"], voice.samples[0, -6 * RATE :])
    assert clip.shape == (2, CLIP_SAMPLES - 6 * RATE)
    assert run.asked == []


def test_a_short_voice_is_taken_whole_as_mono_at_the_models_rate(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text="Hello", ref=FILE, ref_text="Good day.")

    clip = run_task(run, media(ref=recording(2.0, 22_050, channels=2)), model)

    ((_, inputs),) = run.sampled
    assert inputs["audio"].shape == (2 * RATE,)
    assert clip.shape == (2, CLIP_SAMPLES - 2 * RATE)


def test_a_voice_without_transcript_is_listened_to_first(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text="Hello", ref=FILE)
    run.answer = "What is heard。"

    run_task(run, media(ref=recording(8.0)), model)

    ((chat, tokens),) = run.asked
    assert chat.text == chat_text("system transcribe", "<|audio_bos|><|AUDIO|><|audio_eos|>user transcribe")
    assert chat.audio[0].shape == (6 * 16_000,)
    assert tokens == 256
    assert run.sampled[0][1]["speech"] == "What is heard。Hello"


def test_a_voice_that_is_sent_again_is_not_listened_to_again(model: OmniModel) -> None:
    first, again, other = (run_of("generate", name="tts", text="Hello", ref=FILE) for _ in range(3))
    first.answer = other.answer = "What is heard。"
    model = replace(model, transcripts=ContentCache(1000, len))

    run_task(first, media(ref=recording(8.0)), model)
    run_task(again, media(ref=recording(8.0)), model)
    run_task(other, media(ref=recording(7.0)), model)

    assert [len(run.asked) for run in (first, again, other)] == [1, 0, 1]
    assert again.sampled[0][1]["speech"] == "What is heard。Hello"


@pytest.mark.parametrize(
    ("before", "joined"),
    [
        ("Good day", "Good day. Hello"),
        ("Good day.", "Good day. Hello"),
        ("Good day. ", "Good day. Hello"),
        ("你好。", "你好。Hello"),
        ("Good day!", "Good day!. Hello"),
    ],
)
def test_transcript_and_text_are_joined_by_what_is_missing(before: str, joined: str) -> None:
    assert join_transcript(before, "Hello") == joined


@pytest.mark.parametrize(
    ("task", "sent", "field"),
    [
        ({"name": "tts", "text": "Hello", "ref": FILE}, ("ref",), "ref"),
        ({"name": "vc", "audio": FILE, "ref": FILE, "ref_text": "Hi"}, ("audio", "ref"), "audio"),
    ],
)
def test_a_recording_without_words_is_refused(
    model: OmniModel, task: dict[str, Any], sent: tuple[str, ...], field: str
) -> None:
    run = run_of("generate", **task)
    run.answer = ""

    with pytest.raises(InvalidJob, match="no words are heard") as caught:
        run_task(run, media(**{name: recording(1.0) for name in sent}), model)

    assert caught.value.field == field
    assert run.sampled == []


def test_voice_conversion_says_what_the_audio_says(model: OmniModel) -> None:
    run = run_of("generate", name="vc", audio=FILE, ref=FILE, ref_text="Good day")
    run.answer = "heard words"

    run_task(run, media(audio=recording(3.0), ref=recording(2.0)), model)

    ((chat, _),) = run.asked
    assert chat.audio[0].shape == (3 * 16_000,)
    assert run.sampled[0][1]["speech"] == "Good day. heard words"


def test_voice_conversion_of_a_known_text_listens_to_nothing(model: OmniModel) -> None:
    run = run_of("generate", name="vc", text="Hello", ref=FILE, ref_text="Good day")

    run_task(run, media(ref=recording(2.0)), model)

    assert run.asked == []
    assert run.sampled[0][1]["speech"] == "Good day. Hello"


@pytest.mark.parametrize(
    ("task", "sent", "field"),
    [
        ({"name": "tts", "text": "la " * 3000}, (), "text"),
        ({"name": "tts", "text": "la " * 3000, "ref": FILE, "ref_text": "Hi"}, ("ref",), "text"),
        ({"name": "vc", "audio": FILE, "ref": FILE, "ref_text": "Hi"}, ("audio", "ref"), "audio"),
    ],
)
def test_what_takes_too_long_to_say_is_refused_before_it_is_sampled(
    model: OmniModel, task: dict[str, Any], sent: tuple[str, ...], field: str
) -> None:
    run = run_of("generate", **task)
    run.answer = "la " * 3000

    with pytest.raises(InvalidJob, match="to say") as caught:
        run_task(run, media(**{name: recording(6.0) for name in sent}), model)

    assert caught.value.field == field
    assert caught.value.remedy == "Split it, one job a chapter"
    assert run.sampled == []


LONG_TEXT = " ".join(f"This is sentence number {number}, and it is said slowly." for number in range(12))


def test_a_long_text_is_said_in_parts_in_the_voice_of_the_reference(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text=LONG_TEXT, ref=FILE, ref_text="Good day.")

    said = run_task(run, media(ref=recording(6.0)), model)

    parts = [inputs["speech"].removeprefix("Good day. ") for _, inputs in run.sampled]
    assert len(parts) > 3 and " ".join(parts) == LONG_TEXT
    assert all(len(inputs["audio"]) == 6 * RATE for _, inputs in run.sampled)
    assert isinstance(said, np.ndarray) and said.shape[1] > len(parts) * (CLIP_SAMPLES - 6 * RATE)


def test_a_long_text_without_a_reference_goes_on_in_the_voice_of_its_first_part(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text=LONG_TEXT)

    run_task(run, media(), model)

    (_, first), *others = run.sampled
    assert "audio" not in first and LONG_TEXT.startswith(first["speech"])
    assert all(len(inputs["audio"]) == 6 * RATE for _, inputs in others)
    # The clip is longer than a voice, so that its last words alone are in the voice.
    voice_text = others[0][1]["speech"].partition(". ")[0]
    assert voice_text and first["speech"].rstrip(".").endswith(voice_text)


def test_a_voice_is_converted_however_long_the_source(model: OmniModel) -> None:
    run = run_of("generate", name="vc", audio=FILE, ref=FILE, ref_text="Hi")
    run.answer = "It goes on, and on, and on."

    run_task(run, media(audio=recording(100.0), ref=recording(6.0)), model)

    assert len(run.asked) > 3
    assert " ".join(inputs["speech"].removeprefix("Hi. ") for _, inputs in run.sampled) == " ".join(
        [run.answer] * len(run.asked)
    )


def test_a_text_without_sounds_that_the_model_knows_is_refused(model: OmniModel) -> None:
    run = run_of("generate", name="tts", text="привет")

    with pytest.raises(LanguageNotSupported, match="no sound for") as caught:
        run_task(run, media(), model)

    assert caught.value.field == "text"
    assert "en, zh" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"name": "add", "desc": "rain"}, "put rain in"),
        ({"name": "remove", "desc": "{desc} {source}"}, "take {desc} {source} out"),
        ({"name": "extract", "desc": "{0.__class__}"}, "keep {0.__class__}"),
        ({"name": "style", "source": "guitar {target}", "target": "sax"}, "guitar {target} to sax"),
    ],
)
def test_an_edit_is_put_in_the_checkpoints_words_and_cut_to_its_source(
    model: OmniModel, task: dict[str, Any], said: str
) -> None:
    run = run_of("edit", audio=FILE, **task)
    source = recording(3.3)

    clip = run_task(run, media(audio=source), model)

    ((prompt, inputs),) = run.sampled
    assert prompt.text == chat_text("system EDITING", said)
    assert list(inputs) == ["audio"]
    assert np.array_equal(inputs["audio"], source.samples[0])
    assert isinstance(clip, EditedSound)
    assert clip.samples.shape == (2, source.samples.shape[1])


def test_a_free_question_is_put_as_it_is_beside_all_its_media(model: OmniModel) -> None:
    run = run_of("understand", name="question", text="Who {is} louder?", max_new_tokens=7)
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    sent = JobMedia({"audio": (recording(1.0), recording(2.0))}, (DecodedVideo(frames, 2.0, 1.0),))

    answer = run_task(run, sent, model)

    ((chat, tokens),) = run.asked
    marks = "<|audio_bos|><|AUDIO|><|audio_eos|>" * 2 + "<|vision_bos|><|VIDEO|><|vision_eos|>"
    assert chat.text == chat_text("system UNDERSTANDING", f"{marks}Who {{is}} louder?")
    assert [len(wave) for wave in chat.audio] == [16_000, 32_000]
    assert chat.video[0] is frames
    assert (answer, tokens) == ("an answer", 7)


def question_of(model: OmniModel, name: str, **task: Any) -> Chat:
    run = run_of("understand", name=name, audio=[FILE], **task)
    with suppress(OmnifleetError):  # some answers must be records, which this run does not give
        run_task(run, media(audio=recording(1.0)), model)
    chat, _ = run.asked[0]
    return chat


def test_every_named_question_is_one_of_its_own(model: OmniModel) -> None:
    names = get_args(NamedQuestion)

    questions = {question_of(model, name, text="a note").user for name in names}

    assert len(questions) == len(names)
    assert all(question.count("a note") == 1 for question in questions)


@pytest.mark.parametrize("name", [name for name in get_args(NamedQuestion) if name != "qa"])
def test_a_named_question_needs_no_text(model: OmniModel, name: str) -> None:
    user = question_of(model, name).user

    assert user
    assert "{text}" not in user


@pytest.mark.parametrize("name", get_args(NamedQuestion))
def test_braces_in_a_note_stay_what_they_are(model: OmniModel, name: str) -> None:
    assert question_of(model, name, text="{0} {text} {").user.count("{0} {text} {") == 1


@pytest.mark.parametrize("name", ["transcribe", "caption"])
def test_the_callers_system_prompt_wins(model: OmniModel, name: str) -> None:
    assert question_of(model, name, system="Be brief.").system == "Be brief."


def test_a_task_that_this_release_cannot_do_is_refused(model: OmniModel) -> None:
    run = run_of("edit", name="speech", audio=FILE, desc="replace 'a' with 'b'")

    with pytest.raises(TaskNotSupported):
        run_task(run, media(audio=recording(1.0)), model)
