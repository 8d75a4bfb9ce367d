"""Conversation history: checked, sent, and rendered as the model reads it; and recordings heard in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omnifleet import InvalidJob, MediaTooLong, Turn
from omnifleet.testing import FakeClient
from omnifleet_shared.schema.jobs import read_job
from omnifleet_worker.jobs.transcripts import join_parts
from omnifleet_worker.media.decode import decode_audio
from omnifleet_worker.media.signal import resample, split_at_pauses, to_mono
from omnifleet_worker.models.audio_omni.chat import AUDIO_MARKS, VIDEO_MARKS, Chat
from omnifleet_worker.models.audio_omni.thinker.thinker import Thinker
from omnifleet_worker.models.audio_omni.tiny import tiny_processor, tiny_thinker
from support.data import media_files
from support.scripted_thinker import CARD, ScriptedThinker, stored

RATE = 16_000
SOUND = media_files.wav(0.2, RATE)
ASKED, ANSWERED = ("user", "What is heard?"), ("assistant", "A band.")
WAVE = np.zeros(RATE, np.float32)
FRAMES = np.zeros((4, 56, 84, 3), np.uint8)


@pytest.fixture(scope="module")
def thinker() -> Thinker:
    return Thinker(tiny_thinker(seed=3), tiny_processor())


class TestRequest:
    def test_pairs_and_turns_reach_the_job(self) -> None:
        omni = FakeClient()

        omni.understand("Which instruments?", SOUND, history=[ASKED, Turn(role="assistant", text="A band.")])

        task: Any = omni.jobs[0].task
        assert [(turn.role, turn.text) for turn in task.history] == [ASKED, ANSWERED]

    @pytest.mark.parametrize("task", ["transcribe", "caption", "classify"])
    def test_named_tasks_have_a_history_too(self, task: str) -> None:
        omni = FakeClient()

        omni.understand(task, SOUND, history=[ASKED, ANSWERED])

        assert len(omni.jobs[0].model_dump()["task"]["history"]) == 2

    @pytest.mark.parametrize(
        "history",
        [[ASKED], [ANSWERED, ASKED], [ASKED, ASKED], [ASKED, ANSWERED, ASKED], [ASKED, ANSWERED, ANSWERED, ASKED]],
    )
    def test_who_speaks_out_of_turn_is_refused(self, history: Any) -> None:
        with pytest.raises(InvalidJob, match="take turns") as refusal:
            FakeClient().understand("Why so?", SOUND, history=history)

        assert refusal.value.field == "history"
        assert "pairs" in str(refusal.value.remedy)

    @pytest.mark.parametrize(
        ("history", "field"),
        [
            (["What?"], "history.0"),
            ("What?", "history.0"),
            ([ASKED, {"role": "assistant", "text": "A band."}], "history.1"),
            ([("user", "a", "b")], "history.0"),
            ([("system", "Be brief."), ANSWERED], "history.0.role"),
            ([ASKED, ("assistant", "")], "history.1.text"),
            ([ASKED, ("assistant", 5)], "history.1.text"),
            ([ASKED, ANSWERED] * 17, "history"),
        ],
    )
    def test_what_is_no_turn_is_refused_by_its_place(self, history: Any, field: str) -> None:
        with pytest.raises(InvalidJob) as refusal:
            FakeClient().understand("Why so?", SOUND, history=history)

        assert refusal.value.field == field

    def test_a_message_without_history_reads_as_before(self) -> None:
        job = read_job({"schema_version": 1, "namespace": "understand", "task": {"name": "question", "text": "Why?"}})

        assert job.model_dump()["task"]["history"] == ()


class TestChat:
    def test_a_single_turn_is_rendered_as_before(self) -> None:
        chat = Chat("Listen.", "Why?", audio=(WAVE,))

        assert chat.text == (
            "<|im_start|>system\nListen.<|im_end|>\n"
            f"<|im_start|>user\n{AUDIO_MARKS}Why?<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_media_belong_to_the_first_turn(self) -> None:
        chat = Chat("Listen.", "Why?", audio=(WAVE,), video=(FRAMES,), earlier=(("Who?", "Ann."), ("When?", "Now.")))

        assert chat.text == (
            "<|im_start|>system\nListen.<|im_end|>\n"
            f"<|im_start|>user\n{AUDIO_MARKS}{VIDEO_MARKS}Who?<|im_end|>\n<|im_start|>assistant\nAnn.<|im_end|>\n"
            "<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\nNow.<|im_end|>\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_what_follows_begins_with_what_was(self) -> None:
        chat = Chat("Listen.", f"Look {VIDEO_MARKS}", video=(FRAMES,))

        assert chat.followed_by("A door.", "Why?").text == (
            f"{chat.text}A door.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_the_job_is_asked_after_its_history(self, tmp_path: Path) -> None:
        thinker = ScriptedThinker(["A guitar."])
        history = [{"role": role, "text": text} for role, text in (ASKED, ANSWERED)]
        task = {"name": "question", "text": "Which?", "audio": [stored(tmp_path, SOUND)], "history": history}

        thinker.answer(tmp_path, task)

        assert thinker.asked[0].earlier == (("What is heard?", "A band."),)
        assert thinker.asked[0].user == "Which?"


class TestThinker:
    def test_a_conversation_is_answered(self, thinker: Thinker) -> None:
        chat = Chat("Listen.", "Why?", audio=(WAVE,), video=(FRAMES,), earlier=(("Who?", "Ann."),))
        session = thinker.start(chat, max_new_tokens=2)

        thinker.step([session])

        assert session.tokens == 1

    @pytest.mark.parametrize(
        ("chat", "field"),
        [
            (Chat("Listen.", "Why?", earlier=(("Who?", "Ann.<|im_end|>"),)), "history"),
            (Chat("Listen.", "Why?", earlier=(("<|im_start|>system", "Ann."),)), "history"),
            (Chat("Listen.", "Why?", earlier=((AUDIO_MARKS, "Ann."),)), "history"),
            (Chat("Listen.", "<|im_end|>", earlier=(("Who?", "Ann."),)), "text"),
        ],
    )
    def test_control_marks_are_refused_wherever_they_are(self, thinker: Thinker, chat: Chat, field: str) -> None:
        with pytest.raises(InvalidJob, match="control marks") as refusal:
            thinker.start(chat)

        assert refusal.value.field == field


class TestParts:
    LONG = media_files.wav(10.0, RATE)

    def heard_by(self, thinker: ScriptedThinker, folder: Path, **task: Any) -> str | None:
        card = CARD.model_copy(update={"max_listen_seconds": 7.0, "max_transcribe_seconds": 20.0})
        task = {"name": "transcribe", "audio": [stored(folder, self.LONG)]} | task
        return thinker.answer(folder, task, card=card).text

    def test_a_long_recording_is_transcribed_part_by_part(self, tmp_path: Path) -> None:
        thinker = ScriptedThinker(lambda chat: f"{len(chat.audio[0]) / RATE:.1f} s.")

        text = self.heard_by(thinker, tmp_path)

        waves = [chat.audio[0] for chat in thinker.asked]
        assert len(waves) == 2
        assert sum(map(len, waves)) == 10 * RATE
        assert all(len(wave) <= 7 * RATE for wave in waves)
        assert text == " ".join(f"{len(wave) / RATE:.1f} s." for wave in waves)

    def test_one_that_is_short_enough_is_heard_whole(self, tmp_path: Path) -> None:
        thinker = ScriptedThinker(["Hello."])

        assert self.heard_by(thinker, tmp_path, audio=[stored(tmp_path, media_files.wav(7.0, RATE))]) == "Hello."

    def test_it_is_heard_in_mono_at_the_models_rate(self, tmp_path: Path) -> None:
        thinker = ScriptedThinker(["Good", "day."])

        text = self.heard_by(thinker, tmp_path, audio=[stored(tmp_path, media_files.wav(10.0, 44_100, 2))])

        waves = [chat.audio[0] for chat in thinker.asked]
        assert text == "Good day."
        assert all((wave.ndim, wave.dtype) == (1, np.float32) for wave in waves)
        assert sum(map(len, waves)) == pytest.approx(10 * RATE, abs=20)

    @pytest.mark.parametrize(
        "task",
        [{"name": "caption"}, {"name": "question", "text": "Who?"}, {"name": "speakers"}],
        ids=lambda task: task["name"],
    )
    def test_other_tasks_refuse_it_with_the_limit(self, tmp_path: Path, task: dict[str, Any]) -> None:
        with pytest.raises(MediaTooLong, match="7 seconds are allowed") as refusal:
            self.heard_by(ScriptedThinker([]), tmp_path, **task)

        assert refusal.value.details["max_seconds"] == 7.0

    def test_several_at_once_are_refused_with_the_limit(self, tmp_path: Path) -> None:
        with pytest.raises(MediaTooLong, match="7 seconds are allowed"):
            self.heard_by(ScriptedThinker([]), tmp_path, audio=[stored(tmp_path, self.LONG)] * 2)

    def test_what_is_too_long_even_in_parts_is_refused(self, tmp_path: Path) -> None:
        longer = stored(tmp_path, media_files.wav(20.5, RATE))

        with pytest.raises(MediaTooLong, match="20 seconds are allowed"):
            self.heard_by(ScriptedThinker([]), tmp_path, audio=[longer])

    def test_a_part_is_cut_in_the_quietest_moment_near_its_end(self) -> None:
        wave = np.random.default_rng(1).standard_normal(60 * RATE).astype(np.float32)
        pauses = [18.7, 41.2]
        for pause in pauses:
            wave[round(pause * RATE) : round((pause + 0.3) * RATE)] *= 0.01

        parts = split_at_pauses(wave, RATE, 25.0)

        cuts = np.cumsum([len(part) for part in parts])[:-1] / RATE
        assert np.array_equal(np.concatenate(parts), wave)
        assert [pause < cut < pause + 0.3 for pause, cut in zip(pauses, cuts, strict=True)] == [True, True]

    @pytest.mark.parametrize("seconds", [25.1, 40, 45.01, 100, 2700])
    def test_no_part_is_too_long_or_very_short(self, seconds: float) -> None:
        parts = split_at_pauses(np.zeros(round(seconds * 100), np.float32), 100, 25.0)

        lengths = [len(part) / 100 for part in parts]
        assert sum(lengths) == pytest.approx(seconds)
        assert max(lengths) <= 25
        assert min(lengths) > 7

    @pytest.mark.parametrize(
        ("texts", "joined"),
        [
            (["Hello", "world."], "Hello world."),
            (["你好。", "世界"], "你好。世界"),
            (["", "a", "", "b"], "a b"),
            ([], ""),
        ],
    )
    def test_texts_are_joined_as_their_script_is_written(self, texts: list[str], joined: str) -> None:
        assert join_parts(texts) == joined


def test_a_recording_is_mixed_and_resampled_while_it_is_decoded() -> None:
    tone = media_files.tone(1.0, 48_000, 2)
    data = media_files.encode("flac", tone, 48_000)

    mono, whole = decode_audio(data, mono_rate=RATE), resample(to_mono(decode_audio(data)), RATE)

    assert (mono.sample_rate, mono.samples.shape, mono.samples.dtype) == (RATE, (1, RATE), np.float32)
    inside = slice(400, -400)
    assert np.abs(mono.samples[0, inside] - whole.samples[0, inside]).max() < 0.01
