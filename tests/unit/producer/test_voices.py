"""Named voices, as users add, name and remove them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from omnifleet import FleetSettings, InvalidJob, MediaEmpty, MediaNotFound, VoiceNotFound
from omnifleet.batch import generate
from omnifleet.cli import app
from omnifleet.testing import FakeAsyncClient, FakeClient
from support.data import media_files
from typer.testing import CliRunner, Result

SOUND = media_files.wav(0.5, 16_000)


@pytest.fixture
def omni() -> FakeClient:
    return FakeClient()


@pytest.fixture
def with_anna(omni: FakeClient) -> FakeClient:
    omni.voices.add("anna", SOUND, text="Good morning", consent="contract 12, signed by Anna")
    return omni


def task_of(omni: FakeClient) -> Any:
    return omni.jobs[-1].task


def run(omni: FakeClient, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, obj=omni)


class TestKeeping:
    def test_a_voice_is_kept_with_its_consent_and_who_added_it_when(self, omni: FakeClient, tmp_path: Path) -> None:
        (tmp_path / "anna.wav").write_bytes(SOUND)

        added = omni.voices.add("anna", tmp_path / "anna.wav", text=" Hello ", consent="contract 12", added_by="eve")

        assert omni.voices.get("anna") == added
        assert (added.name, added.text, added.consent, added.added_by) == ("anna", "Hello", "contract 12", "eve")
        assert (added.sha256, added.bytes) == (hashlib.sha256(SOUND).hexdigest(), len(SOUND))
        assert datetime.now(UTC) - added.added_at < timedelta(minutes=5)

    def test_who_adds_it_is_the_producer_or_the_user_of_the_machine(self, omni: FakeClient) -> None:
        named = FakeClient(settings=FleetSettings(producer="nightly"))

        assert "@" in omni.voices.add("a", SOUND, consent="yes").added_by
        assert named.voices.add("a", SOUND, consent="yes").added_by == "nightly"

    def test_another_client_with_that_storage_has_it_too(self, with_anna: FakeClient) -> None:
        other = FakeClient(fleet=with_anna.fleet)
        other.voices.add("bert", io.BytesIO(SOUND), consent="yes")

        assert [voice.name for voice in with_anna.voices.list()] == ["anna", "bert"]

    def test_what_is_stored_already_may_become_a_voice(self, omni: FakeClient) -> None:
        stored = omni.fleet.storage.put("recordings/1.wav", io.BytesIO(SOUND), content_type="audio/wav")

        assert omni.voices.add("anna", stored.uri, consent="yes").bytes == len(SOUND)

    def test_the_same_once_more_changes_nothing(self, with_anna: FakeClient) -> None:
        before = with_anna.voices.get("anna")

        again = with_anna.voices.add("anna", SOUND, text="Good morning", consent="contract 12, signed by Anna")

        assert again == before == with_anna.voices.get("anna")

    def test_a_name_is_not_taken_over(self, with_anna: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="there is another voice 'anna'") as refused:
            with_anna.voices.add("anna", b"another recording", consent="yes")

        assert refused.value.field == "name"

    @pytest.mark.parametrize(
        ("arguments", "error", "field"),
        [
            ({"name": "../anna"}, InvalidJob, "name"),
            ({"name": "Anna"}, InvalidJob, "name"),
            ({"name": ""}, InvalidJob, "name"),
            ({"consent": " "}, InvalidJob, "consent"),
            ({"audio": b""}, MediaEmpty, "audio"),
            ({"audio": "nowhere.wav"}, MediaNotFound, "audio"),
        ],
    )
    def test_what_will_not_do_is_refused_and_nothing_stored(
        self, omni: FakeClient, arguments: dict[str, Any], error: type[Exception], field: str
    ) -> None:
        with pytest.raises(error) as refused:
            omni.voices.add(**{"name": "anna", "audio": SOUND, "consent": "yes", **arguments})

        assert refused.value.field == field  # type: ignore[attr-defined]
        assert omni.fleet.storage.objects == {}  # type: ignore[attr-defined]


class TestNaming:
    @pytest.mark.parametrize("task", ["tts", "vc"])
    def test_a_voice_goes_wherever_a_reference_does(self, with_anna: FakeClient, task: str) -> None:
        with_anna.generate(task, "Hello", ref="voice:anna").result()

        ref = task_of(with_anna).ref
        assert with_anna.fleet.storage.get(ref.uri, max_bytes=10**6) == SOUND
        assert ref.sha256 == hashlib.sha256(SOUND).hexdigest()
        assert task_of(with_anna).ref_text == "Good morning"
        # As if its recording had been sent: workers of every release take it.
        assert with_anna.jobs[-1].schema_version == 1

    def test_words_that_are_given_come_before_those_of_the_voice(self, with_anna: FakeClient) -> None:
        with_anna.generate("tts", "Hello", ref="voice:anna", ref_text="Good evening")

        assert task_of(with_anna).ref_text == "Good evening"

    def test_a_voice_without_words_is_left_to_the_model(self, omni: FakeClient) -> None:
        omni.voices.add("bert", SOUND, consent="yes")

        omni.generate("tts", "Hello", ref="voice:bert")

        assert task_of(omni).ref_text is None

    @pytest.mark.parametrize("name", ["nobody", "../anna", ""])
    def test_one_that_is_not_there_is_an_error_before_the_job(self, with_anna: FakeClient, name: str) -> None:
        with pytest.raises((VoiceNotFound, InvalidJob), match="voice"):
            with_anna.generate("tts", "Hello", ref=f"voice:{name}")

        assert with_anna.jobs == []

    def test_a_removed_one_is_gone_for_good(self, with_anna: FakeClient) -> None:
        with_anna.voices.remove("anna")

        with pytest.raises(VoiceNotFound, match="no voice 'anna'") as missing:
            with_anna.generate("tts", "Hello", ref="voice:anna")
        assert missing.value.field == "ref"
        assert with_anna.fleet.storage.objects == {}  # type: ignore[attr-defined]
        assert with_anna.voices.list() == ()

    def test_a_batch_names_it_too(self, with_anna: FakeClient) -> None:
        line = {"task": "generate.tts", "text": "Hello", "ref": "voice:anna"}
        requests = [generate("tts", "Hello", ref="voice:anna"), line, line | {"ref": "voice:nobody"}]

        *made, missing = with_anna.batch(requests, in_order=True)

        assert [outcome.error for outcome in made] == [None, None]
        assert isinstance(missing.error, VoiceNotFound)

    def test_the_command_line_s_batch_does_not_look_for_a_file(
        self, with_anna: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("jobs.csv").write_text("text,who\nHello,anna\n")
        fixed = ("--task", "generate.tts", "--ref", "voice:{who}")

        done = run(with_anna, "batch", "run", "jobs.csv", *fixed, "--out", "night")

        assert done.exit_code == 0, done.output
        assert task_of(with_anna).ref_text == "Good morning"

    def test_asyncio_has_all_of_it(self, with_anna: FakeClient) -> None:
        async def use() -> list[str]:
            async with FakeAsyncClient(fleet=with_anna.fleet) as omni:
                await omni.voices.add("bert", SOUND, consent="yes")
                await (await omni.generate("tts", "Hello", ref="voice:bert")).result()
                assert (await omni.voices.get("bert")).name == "bert"
                await omni.voices.remove("anna")
                return [voice.name for voice in await omni.voices.list()]

        assert asyncio.run(use()) == ["bert"]


class TestCommandLine:
    def test_voices_are_added_listed_shown_and_removed(self, omni: FakeClient, tmp_path: Path) -> None:
        (tmp_path / "anna.wav").write_bytes(SOUND)
        add = ("voices", "add", "anna", str(tmp_path / "anna.wav"), "--consent", "contract 12", "--added-by", "eve")

        added, listed = run(omni, *add), run(omni, "voices", "list")
        shown, removed = run(omni, "voices", "show", "anna", "--json"), run(omni, "voices", "remove", "anna")

        assert added.exit_code == 0, added.output
        assert added.stdout == listed.stdout
        assert listed.stdout.startswith("anna  2") and listed.stdout.endswith("  eve  contract 12\n")
        assert json.loads(shown.stdout)["consent"] == "contract 12"
        assert removed.stdout == "anna is removed\n"
        assert run(omni, "voices", "list").stdout.strip() == ""

    def test_one_that_is_not_there_is_a_wrong_request(self, omni: FakeClient) -> None:
        done = run(omni, "generate", "tts", "Hello", "--ref", "voice:anna")

        assert done.exit_code == 2
        assert done.stderr.startswith("VoiceNotFound: ref: there is no voice 'anna'.")
