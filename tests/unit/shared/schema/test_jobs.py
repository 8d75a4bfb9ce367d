"""Job records: everything that may be asked reads and round-trips; everything else is refused in words that help."""

from __future__ import annotations

import copy
import json
import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import (
    InvalidJob,
    InvalidMessage,
    LanguageNotSupported,
    OmnifleetError,
    SchemaTooNew,
    TaskNotSupported,
    UnknownTask,
)
from omnifleet_shared.keys import JOB_SCHEMA_VERSION
from omnifleet_shared.schema.jobs import MAX_SEED, EditJob, GenerateJob, Job, UnderstandJob, read_job
from omnifleet_shared.schema.model_card import AUDIO_OMNI
from omnifleet_shared.schema.tasks import OTHER_SPELLINGS, TASK_NAMES, task_name
from pydantic import ValidationError

SOUND = {"uri": "s3://media/inputs/ab/street.wav"}
FILM = {"uri": "s3://media/inputs/cd/film.mp4", "sha256": "0" * 64, "bytes": 7}
ANY_SOUND = {"audio": [SOUND]}

FIELDS: dict[str, dict[str, Any]] = {
    "understand.question": {"text": "What is the capital of France?"},
    "understand.transcribe": ANY_SOUND,
    "understand.caption": {"video": [FILM]},
    "understand.qa": {"audio": [SOUND], "text": "Who speaks?"},
    "understand.classify": {"audio": [SOUND], "video": [FILM]},
    "understand.sources": ANY_SOUND,
    "understand.scene": ANY_SOUND,
    "understand.speakers": ANY_SOUND,
    "understand.gender": ANY_SOUND,
    "understand.sarcasm": ANY_SOUND,
    "understand.feedback": {"audio": [SOUND], "text": "I would like some tea", "max_new_tokens": 64},
    "generate.t2a": {"text": "rain on a tin roof", "seconds": 2.5},
    "generate.t2m": {"text": "a slow waltz"},
    "generate.v2a": {"video": FILM},
    "generate.v2m": {"video": FILM, "text": "cheerful", "seconds": 4},
    "generate.tts": {"text": "Hello world", "ref": SOUND, "ref_text": "Good morning"},
    "generate.vc": {"ref": SOUND, "audio": SOUND},
    "edit.add": {"audio": SOUND, "desc": "rain"},
    "edit.remove": {"audio": SOUND, "desc": "dog barking"},
    "edit.extract": {"audio": SOUND, "desc": "speech"},
    "edit.style": {"audio": SOUND, "source": "piano", "target": "harp"},
    "edit.speech": {"audio": SOUND, "desc": "replace 'hello' with 'goodbye'"},
}
TASKS = [f"{namespace}.{name}" for namespace, names in TASK_NAMES.items() for name in names]
SPELLINGS = [
    (task, spelling)
    for task in TASKS
    for name in [task.partition(".")[2]]
    for spelling in [name, name.upper(), name.title(), f" {name} "]
] + [
    (task, spelling)
    for published, name in OTHER_SPELLINGS.items()
    for task in TASKS
    if task.endswith(f".{name}")
    for spelling in [published, published.title(), published.replace(" ", "_"), published.replace(" ", "-").upper()]
]


def message(task: str, **changes: Any) -> dict[str, Any]:
    """The smallest message for a task (`namespace.name`); None takes a field of the task away."""
    namespace, _, name = task.partition(".")
    top = {key: changes.pop(key) for key in list(changes) if key in GenerateJob.model_fields and key != "task"}
    fields = {key: value for key, value in (FIELDS[task] | changes).items() if value is not None}
    return {"schema_version": 1, "namespace": namespace, "task": {"name": name, **fields}} | top


def refusal(payload: object, kind: type[OmnifleetError]) -> OmnifleetError:
    with pytest.raises(OmnifleetError) as caught:
        read_job(payload)
    assert type(caught.value) is kind
    return caught.value


def assert_readable(error: OmnifleetError) -> None:
    text = str(error)
    assert re.fullmatch(r"(?s)\S.*[^.\s]\.", text), text
    assert not re.search(r"Value error|validation error|For further information|\bNone\b: ", text), text
    assert len(text) < 1000


class TestRead:
    def test_the_table_of_examples_covers_every_task(self) -> None:
        assert set(FIELDS) == set(TASKS)

    @pytest.mark.parametrize("task", TASKS)
    def test_every_task_round_trips_through_json(self, task: str) -> None:
        job = read_job(message(task, deadline="2031-01-02T03:04:05.678+02:00", language="fr", priority="batch"))

        again = read_job(json.loads(json.dumps(job.model_dump(mode="json"), allow_nan=False)))

        assert again == job
        assert f"{again.namespace}.{again.task.name}" == task

    @pytest.mark.parametrize("task", TASKS)
    def test_json_text_round_trips_too(self, task: str) -> None:
        job = read_job(message(task))

        assert read_job(json.loads(job.model_dump_json())) == job

    @pytest.mark.parametrize(("task", "spelling"), SPELLINGS)
    def test_every_spelling_of_a_task_is_understood(self, task: str, spelling: str) -> None:
        payload = message(task)
        payload["task"]["name"] = spelling

        assert f"{payload['namespace']}.{read_job(payload).task.name}" == task

    def test_each_namespace_has_its_own_record(self) -> None:
        kinds = [type(read_job(message(task))) for task in ("understand.qa", "generate.t2a", "edit.add")]

        assert kinds == [UnderstandJob, GenerateJob, EditJob]

    def test_the_payload_is_left_as_it_was(self) -> None:
        payload = message("edit.add")
        payload["task"]["name"] = "ADD"
        before = copy.deepcopy(payload)

        read_job(payload)

        assert payload == before

    @pytest.mark.parametrize(
        ("given_code", "code"),
        [("en-US", "en"), ("zh_CN", "zh"), (" DE ", "de"), ("fr", "fr"), ("en -US", "en"), ("EN", "en")],
    )
    def test_languages_are_taken_without_their_region(self, given_code: str, code: str) -> None:
        assert read_job(message("generate.tts", language=given_code)).language == code

    def test_white_space_around_a_text_is_left_out(self) -> None:
        job = read_job(message("edit.add", desc="  rain\n"))

        assert job.task.model_dump()["desc"] == "rain"

    def test_a_job_is_frozen(self) -> None:
        job = read_job(message("edit.add"))

        with pytest.raises(ValidationError, match="frozen"):
            job.seed = 1  # type: ignore[misc]

    def test_a_task_is_frozen(self) -> None:
        job = read_job(message("edit.add"))

        with pytest.raises(ValidationError, match="frozen"):
            job.task.name = "remove"  # type: ignore[misc, assignment]


class TestDefaults:
    def test_a_seed_is_drawn_within_its_range(self) -> None:
        seeds = {read_job(message("generate.t2a")).seed for _ in range(50)}

        assert all(0 <= seed <= MAX_SEED for seed in seeds)
        assert len(seeds) > 1

    @pytest.mark.parametrize("seed", [0, MAX_SEED])
    def test_both_ends_of_the_seeds_are_taken(self, seed: int) -> None:
        assert read_job(message("generate.t2a", seed=seed)).seed == seed

    def test_the_drawn_seed_stays_with_the_job(self) -> None:
        job = read_job(message("generate.t2a"))

        assert read_job(job.model_dump(mode="json")).seed == job.seed

    def test_every_job_gets_an_id_of_its_own(self) -> None:
        first, second = read_job(message("edit.add")), read_job(message("edit.add"))

        assert first.job_id != second.job_id

    @pytest.mark.parametrize(("task", "guidance"), [("generate.t2a", 7.0), ("edit.add", 6.0)])
    def test_steps_and_guidance_are_the_published_ones(self, task: str, guidance: float) -> None:
        job = read_job(message(task))

        assert isinstance(job, GenerateJob | EditJob)
        assert (job.steps, job.guidance) == (100, guidance)


class TestUnknownTask:
    @pytest.mark.parametrize(
        ("namespace", "name", "remedy"),
        [
            ("edit", "remov", "Did you mean 'remove'?"),
            ("understand", "transcrib", "Did you mean 'transcribe'?"),
            ("generate", "zzzzz", "generate knows: t2a, t2m"),
            ("edit", "text to speech", "It is a task of generate"),
            ("generate", "transcribe", "It is a task of understand"),
            ("understand", "Add", "It is a task of edit"),
            ("generate", "", "generate knows:"),
        ],
    )
    def test_the_remedy_names_what_was_meant(self, namespace: str, name: str, remedy: str) -> None:
        error = refusal({"schema_version": 1, "namespace": namespace, "task": {"name": name}}, UnknownTask)

        assert error.field == "task"
        assert repr(name) in error.problem
        assert remedy in (error.remedy or "")
        assert_readable(error)

    def test_a_name_of_a_megabyte_is_not_repeated(self) -> None:
        error = refusal({"schema_version": 1, "namespace": "edit", "task": {"name": "a" * 2**20}}, UnknownTask)

        assert_readable(error)

    @pytest.mark.parametrize("task", ["add", None, [], {}, {"name": None}, {"name": 5}, {"name": ["add"]}])
    def test_a_task_without_its_name_is_refused(self, task: object) -> None:
        error = refusal({"schema_version": 1, "namespace": "edit", "task": task}, InvalidJob)

        assert error.field == "task"
        assert "add, remove" in (error.remedy or "")
        assert_readable(error)


CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no audio to transcribe": (
        *(message("understand.transcribe", audio=None), "audio"),
        *("transcribe needs audio", "Give audio"),
    ),
    "a video to transcribe": (
        *(message("understand.transcribe", audio=None, video=[FILM]), "audio"),
        *("transcribe needs audio", "Give audio"),
    ),
    "nothing to caption": (
        *(message("understand.caption", video=None), "audio"),
        *("caption needs audio or video", "Give either"),
    ),
    "qa without its question": (message("understand.qa", text=None), "text", "needs the question", "Give text"),
    "no audio to edit": (message("edit.add", audio=None), "audio", "add needs it", "Give audio"),
    "no video to score": (message("generate.v2m", video=None), "video", "v2m needs it", "Give video"),
    "nothing to convert": (message("generate.vc", audio=None), "audio", "needs the speech to convert", "Give either"),
    "no voice to convert to": (message("generate.vc", ref=None), "ref", "vc needs it", "Give ref"),
    "a transcript of no voice": (message("generate.tts", ref=None), "ref_text", "there is no ref", "Give ref"),
    "desc and source": (message("edit.add", source="piano"), "source", "add takes no source", "Leave it out"),
    "style with desc": (message("edit.style", desc="piano"), "desc", "style takes no desc", "Leave it out"),
    "style without target": (message("edit.style", target=None), "target", "style needs it", "Give target"),
    "a field nobody knows": (message("edit.add", colour="red"), "colour", "add takes no colour", "Leave it out"),
    "the same in the job": (message("edit.add") | {"colour": 1}, "colour", "the job takes no colour", "Leave it out"),
    "a field called as a namespace": (message("edit.add") | {"edit": 1}, "edit", "takes no edit", "Leave it out"),
    "the same in the task": (message("edit.add", understand=1), "understand", "add takes no understand", "Leave"),
    "temperature of a diffusion job": (
        *(message("edit.add") | {"temperature": 1}, "temperature"),
        *("the job takes no temperature", "Leave it out"),
    ),
    "steps of an answer": (message("understand.qa", steps=10), "steps", "the job takes no steps", "Leave it out"),
    "too many steps": (message("edit.add", steps=1001), "steps", "1001 will not do", "less than or equal to 1000"),
    "no steps": (message("edit.add", steps=0), "steps", "0 will not do", "greater than or equal to 1"),
    "half a step": (message("edit.add", steps=1.5), "steps", "1.5 will not do", "integer"),
    "guidance below 0": (message("edit.add", guidance=-1), "guidance", "-1 will not do", "greater than or equal to 0"),
    "guidance not a number": (message("edit.add", guidance=float("nan")), "guidance", "nan will not do", "finite"),
    "endless guidance": (message("edit.add", guidance=float("inf")), "guidance", "inf will not do", "finite"),
    "seconds not a number": (message("generate.t2a", seconds=float("nan")), "seconds", "nan will not do", "finite"),
    "no seconds": (message("generate.t2a", seconds=0), "seconds", "0 will not do", "greater than or equal to 0.1"),
    "a seed too large": (message("edit.add", seed=MAX_SEED + 1), "seed", "will not do", f"{MAX_SEED}"),
    "a seed below 0": (message("edit.add", seed=-1), "seed", "-1 will not do", "greater than or equal to 0"),
    "an unknown format": (message("edit.add", format="aac"), "format", "'aac' will not do", "'wav', 'flac'"),
    "an unknown priority": (message("edit.add", priority="now"), "priority", "'now' will not do", "'interactive'"),
    "no name of a model": (message("edit.add", model="a/b"), "model", "'a/b' will not do", "pattern"),
    "a deadline without its zone": (
        *(message("edit.add", deadline="2031-01-01T00:00:00"), "deadline"),
        *("will not do", "timezone"),
    ),
    "an empty text": (message("edit.add", desc="  "), "desc", "'  ' will not do", "at least 1 character"),
    "an endless text": (message("edit.add", desc="a" * 10_001), "desc", "will not do", "at most 10000 characters"),
    "a path for media": (message("edit.add", audio="a.wav"), "audio", "'a.wav' will not do", "Media"),
    "media without a place": (message("edit.add", audio={}), "audio.uri", "add needs it", "Give audio.uri"),
    "a hash that is none": (
        *(message("edit.add", audio=SOUND | {"sha256": "../x"}), "audio.sha256"),
        *("'../x' will not do", "pattern"),
    ),
    "too many recordings": (message("understand.qa", audio=[SOUND] * 9), "audio", "will not do", "at most 8 items"),
    "half a character": (message("edit.add", desc="\ud800"), "desc", "will not do", "valid string"),
    "a task nested without end": (
        *(message("edit.add", audio=json.loads("[" * 900 + "]" * 900)), "audio"),
        *("[...]]] will not do", "Media"),
    ),
}


class TestInvalidJob:
    @pytest.mark.parametrize("case", CASES)
    def test_the_field_and_the_remedy_are_named(self, case: str) -> None:
        payload, field, problem, remedy = CASES[case]

        error = refusal(payload, InvalidJob)

        assert error.field == field
        assert problem in error.problem
        assert remedy in (error.remedy or "")
        assert_readable(error)

    @pytest.mark.parametrize("job_id", ["../x", "", "a/b", "a b", "-a", "_a", "a" * 65, "é", "a\n", "a\0", "*", "a:b"])
    def test_an_id_that_could_lead_elsewhere_is_refused(self, job_id: str) -> None:
        error = refusal(message("edit.add", job_id=job_id), InvalidJob)

        assert error.field == "job_id"
        assert_readable(error)

    @pytest.mark.parametrize("job_id", ["a", "0", "a" * 64, "Nightly_2031-01-02"])
    def test_plain_ids_are_taken(self, job_id: str) -> None:
        assert read_job(message("edit.add", job_id=job_id)).job_id == job_id


class TestInvalidMessage:
    @pytest.mark.parametrize("payload", [None, 1, "job", [], [{}], True, 1.5])
    def test_what_is_no_object_is_refused(self, payload: object) -> None:
        error = refusal(payload, InvalidMessage)

        assert error.field == "job"
        assert "JSON object" in (error.remedy or "")
        assert error.details == {"payload": json.dumps(payload)}
        assert_readable(error)

    @pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, True, [], {}])
    def test_a_message_without_a_version_is_refused(self, version: object) -> None:
        error = refusal(message("edit.add") | {"schema_version": version}, InvalidMessage)

        assert error.field == "schema_version"
        assert "1" in (error.remedy or "")
        assert_readable(error)

    def test_an_absent_version_is_refused(self) -> None:
        payload = message("edit.add")
        del payload["schema_version"]

        assert refusal(payload, InvalidMessage).field == "schema_version"

    def test_a_newer_version_says_what_to_upgrade(self) -> None:
        error = refusal({"schema_version": JOB_SCHEMA_VERSION + 1, "unheard": "of"}, SchemaTooNew)

        assert error.field == "schema_version"
        assert "Upgrade the workers" in (error.remedy or "")
        assert "unheard" in error.details["payload"]
        assert_readable(error)

    @pytest.mark.parametrize("namespace", [None, "", "Edit", "transcribe", 1, [], {}, ["edit"], "a" * 10_000])
    def test_an_unknown_namespace_is_refused(self, namespace: object) -> None:
        error = refusal(message("edit.add") | {"namespace": namespace}, InvalidMessage)

        assert error.field == "namespace"
        assert "understand, generate, edit" in (error.remedy or "")
        assert_readable(error)

    def test_only_the_beginning_of_a_payload_is_kept(self) -> None:
        error = refusal(["a" * 10_000], InvalidMessage)

        assert len(error.details["payload"]) == 500

    def test_a_payload_nested_too_deeply_to_print_is_refused(self) -> None:
        payload: list[Any] = []
        for _ in range(100_000):
            payload = [payload]

        error = refusal(payload, InvalidMessage)

        assert error.details["payload"]
        assert_readable(error)


class TestModelCard:
    @pytest.mark.parametrize("task", TASKS)
    def test_what_the_model_can_do_passes(self, task: str) -> None:
        AUDIO_OMNI.validate_job(read_job(message(task)))

    @pytest.mark.parametrize("task", ["edit.speech", "generate.v2a"])
    def test_what_it_cannot_do_is_refused(self, task: str) -> None:
        with pytest.raises(TaskNotSupported, match=task) as caught:
            AUDIO_OMNI.without_tasks({task}).validate_job(read_job(message(task)))

        assert caught.value.field == "task"
        assert "t2a" in (caught.value.remedy or "") or "style" in (caught.value.remedy or "")
        assert_readable(caught.value)

    @pytest.mark.parametrize("task", ["understand.transcribe", "generate.tts", "generate.vc"])
    def test_russian_is_refused_by_its_name(self, task: str) -> None:
        with pytest.raises(LanguageNotSupported, match="'ru'") as caught:
            AUDIO_OMNI.validate_job(read_job(message(task, language="ru-RU")))

        assert caught.value.field == "language"
        assert "en, zh, ja, fr, de" in (caught.value.remedy or "")
        assert_readable(caught.value)

    @pytest.mark.parametrize(
        ("task", "field", "text"),
        [
            ("generate.tts", "text", "Привет, мир"),
            ("generate.tts", "ref_text", "Доброе утро"),
            ("generate.vc", "text", "Добрый день, dear"),
            ("generate.tts", "text", "안녕하세요"),
        ],
    )
    def test_a_script_that_it_cannot_speak_is_refused(self, task: str, field: str, text: str) -> None:
        job = read_job(message(task, **{field: text}))

        with pytest.raises(LanguageNotSupported, match="script") as caught:
            AUDIO_OMNI.validate_job(job)

        assert caught.value.field == field
        assert_readable(caught.value)

    @pytest.mark.parametrize(
        "text",
        [
            "Grüße",
            "你好，世界",
            "こんにちは",
            "スーパー",
            "ﾊﾝｶｸ",
            "ＨＥＬＬＯ",
            "ㄅㄆㄇ",
            "3.14 — 42!",
            "café at Москва station",
        ],
    )
    def test_scripts_that_it_speaks_pass(self, text: str) -> None:
        AUDIO_OMNI.validate_job(read_job(message("generate.tts", text=text)))

    def test_a_description_may_be_in_any_script(self) -> None:
        AUDIO_OMNI.validate_job(read_job(message("generate.t2a", text="дождь")))

    def test_more_seconds_than_it_makes_are_refused(self) -> None:
        with pytest.raises(InvalidJob, match="s is more than audio-omni makes") as caught:
            AUDIO_OMNI.validate_job(read_job(message("generate.t2m", seconds=300.5)))

        assert caught.value.field == "seconds"
        assert caught.value.remedy == "Ask for at most 300 s"
        assert_readable(caught.value)

    def test_exactly_as_many_seconds_as_it_makes_pass(self) -> None:
        AUDIO_OMNI.validate_job(read_job(message("generate.t2m", seconds=300)))

    @pytest.mark.parametrize(("task", "seconds"), [("generate.v2a", 10), ("generate.v2m", 300)])
    def test_only_what_keeps_time_with_a_video_is_as_short_as_the_model_sees(self, task: str, seconds: int) -> None:
        AUDIO_OMNI.validate_job(read_job(message(task, seconds=seconds)))

        with pytest.raises(InvalidJob, match=f"at most {seconds} s"):
            AUDIO_OMNI.validate_job(read_job(message(task, seconds=seconds + 0.5)))


# Half of a surrogate pair is valid in JSON and in no text.
TEXTS = st.text(max_size=8) | st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=3)
NUMBERS = st.integers() | st.floats() | st.integers(-2, 2)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
KEYS = st.sampled_from([*GenerateJob.model_fields, "name", "text", "audio", "uri", "desc", "ref", "edit"]) | TEXTS


def outcome(payload: object) -> Job | OmnifleetError:
    try:
        return read_job(payload)
    except OmnifleetError as error:
        return error


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid message with one to three of its values replaced, removed or added to."""
    payload = copy.deepcopy(draw(st.sampled_from(TASKS).map(message)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(payload)[1:] or [("task",)]))
        holder: Any = payload
        for part in way:
            holder = holder[part]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[last] = draw(JSON)
            case "remove":
                holder.pop(last, None) if isinstance(holder, dict) else holder.pop(last)
            case _ if isinstance(holder, dict):
                holder[draw(KEYS)] = draw(JSON)
            case _:
                holder.append(draw(JSON))
    return payload


class TestAnythingAtAll:
    @given(payload=JSON)
    def test_any_json_gives_a_job_or_a_typed_error(self, payload: object) -> None:
        assert isinstance(outcome(payload), OmnifleetError)

    @given(fields=st.dictionaries(KEYS, JSON, max_size=5), task=st.sampled_from(TASKS))
    def test_any_fields_give_a_job_or_a_typed_error(self, fields: dict[str, Any], task: str) -> None:
        result = outcome(message(task) | fields)

        assert isinstance(result, UnderstandJob | GenerateJob | EditJob | OmnifleetError)

    @given(payload=mutated())
    def test_a_damaged_job_gives_a_job_or_a_readable_error(self, payload: dict[str, Any]) -> None:
        result = outcome(payload)

        if isinstance(result, OmnifleetError):
            assert isinstance(result, InvalidJob | InvalidMessage)
            assert len(str(result)) < 1000
            json.dumps(result.args)
        else:
            assert read_job(json.loads(json.dumps(result.model_dump(mode="json"), allow_nan=False))) == result

    @given(
        task=st.sampled_from(TASKS),
        language=st.none() | st.text(max_size=8),
        seed=st.integers(0, MAX_SEED),
        deadline=st.none() | st.datetimes(datetime(2000, 1, 1), timezones=st.timezones()),
    )
    def test_whatever_is_valid_round_trips(self, task: str, language: str | None, seed: int, deadline: Any) -> None:
        job = read_job(message(task, language=language, seed=seed, deadline=deadline and deadline.isoformat()))

        assert read_job(json.loads(job.model_dump_json())) == job

    @given(spelling=st.text(max_size=20), namespace=st.sampled_from(list(TASK_NAMES)))
    def test_any_spelling_is_a_task_or_unknown(self, spelling: str, namespace: Any) -> None:
        try:
            name = task_name(namespace, spelling)
        except UnknownTask as error:
            assert error.remedy
        else:
            assert name in TASK_NAMES[namespace]

    @given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip))
    def test_any_text_is_spoken_or_refused_by_language(self, text: str) -> None:
        job = outcome(message("generate.tts", text=text))

        if not isinstance(job, OmnifleetError):
            try:
                AUDIO_OMNI.validate_job(job)
            except LanguageNotSupported as error:
                assert error.field == "text"


class TestDryRun:
    def test_without_one_a_job_is_what_every_release_takes(self) -> None:
        job = read_job(message("edit.speech"))

        assert "dry_run" not in job.task.model_dump(mode="json")
        assert job.newer_fields == {}

    def test_it_is_no_job_of_an_older_schema_version(self) -> None:
        dry = {"task": message("edit.speech")["task"] | {"dry_run": True}}

        assert read_job(message("edit.speech") | dry | {"schema_version": 4}).newer_fields == {"dry_run": 4}
        error = refusal(message("edit.speech") | dry | {"schema_version": 3}, InvalidJob)
        assert (error.field, error.remedy) == ("dry_run", "Set schema_version to 4")

    @pytest.mark.parametrize("task", ["edit.add", "edit.style", "generate.tts"])
    def test_other_tasks_have_none(self, task: str) -> None:
        error = refusal(message(task) | {"task": message(task)["task"] | {"dry_run": True}}, InvalidJob)

        assert error.field == "dry_run"


class TestTimestamps:
    def timed(self, timestamps: str | None = "word", version: int = 5, **task: Any) -> dict[str, Any]:
        job = message("understand.transcribe")
        return job | {"schema_version": version, "task": job["task"] | {"timestamps": timestamps, **task}}

    def test_without_any_a_job_is_what_every_release_takes(self) -> None:
        job = read_job(message("understand.transcribe"))

        assert "timestamps" not in job.task.model_dump(mode="json")
        assert job.newer_fields == {}

    def test_they_are_of_no_older_schema_version(self) -> None:
        assert read_job(self.timed()).newer_fields == {"timestamps": 5}
        error = refusal(self.timed(version=4), InvalidJob)
        assert (error.field, error.remedy) == ("timestamps", "Set schema_version to 5")

    def test_they_are_of_one_recording(self) -> None:
        error = refusal(self.timed(audio=[{"uri": "s3://media/1"}, {"uri": "s3://media/2"}]), InvalidJob)

        assert (error.field, error.problem) == ("timestamps", "are of what one recording says")

    @pytest.mark.parametrize("task", ["understand.caption", "understand.question"])
    def test_other_tasks_have_none(self, task: str) -> None:
        job = message(task) | {"schema_version": 5}

        assert refusal(job | {"task": job["task"] | {"timestamps": "word"}}, InvalidJob).field == "timestamps"

    def test_there_are_two_kinds(self) -> None:
        assert refusal(self.timed("letter"), InvalidJob).field == "timestamps"


class TestSpan:
    def spanned(self, version: int = 5, **task: Any) -> dict[str, Any]:
        job = message("edit.speech")
        fields = {name: value for name, value in job["task"].items() if name != "desc"}
        return job | {"schema_version": version, "task": fields | task}

    def test_an_instruction_alone_is_what_every_release_takes(self) -> None:
        job = read_job(message("edit.speech"))

        assert {"span", "text"}.isdisjoint(job.task.model_dump(mode="json"))
        assert job.newer_fields == {}

    def test_it_is_of_no_older_schema_version(self) -> None:
        job = read_job(self.spanned(span=[1, 2.5], text="hello"))

        assert job.newer_fields == {"span": 5}
        assert "desc" not in job.task.model_dump(mode="json")
        assert read_job(json.loads(job.model_dump_json())) == job
        error = refusal(self.spanned(version=4, span=[1, 2.5]), InvalidJob)
        assert (error.field, error.remedy) == ("span", "Set schema_version to 5")

    @pytest.mark.parametrize(
        ("task", "field"),
        [
            ({}, "desc"),
            ({"text": "hello"}, "desc"),
            ({"desc": "delete 'a'", "text": "hello"}, "text"),
            ({"desc": "delete 'a'", "span": [1, 2]}, "span"),
            ({"span": [2, 1]}, "span"),
            ({"span": [-1, 1]}, "span"),
            ({"span": [1]}, "span"),
            ({"span": [1, 2], "text": " "}, "text"),
        ],
    )
    def test_what_says_nothing_or_too_much_is_refused(self, task: dict[str, Any], field: str) -> None:
        assert (refusal(self.spanned(**task), InvalidJob).field or "").split(".")[0] == field


class TestLoudnessAndChannels:
    @pytest.mark.parametrize("task", ["edit.add", "edit.remove", "edit.extract", "edit.style"])
    def test_by_default_an_edit_is_as_loud_as_its_source_and_what_every_release_takes(self, task: str) -> None:
        job = read_job(message(task))

        assert (job.task.loudness, job.task.channels) == ("source", 2)  # type: ignore[union-attr]
        assert not {"loudness", "channels"} & job.task.model_dump(mode="json").keys()
        assert job.newer_fields == {}

    @pytest.mark.parametrize("field", [{"loudness": "peak"}, {"channels": 1}])
    def test_others_are_no_jobs_of_an_older_schema_version(self, field: dict[str, Any]) -> None:
        (name,) = field

        assert read_job(message("edit.add", **field) | {"schema_version": 7}).newer_fields == {name: 7}
        error = refusal(message("edit.add", **field) | {"schema_version": 6}, InvalidJob)
        assert (error.field, error.remedy) == (name, "Set schema_version to 7")

    @pytest.mark.parametrize("field", [{"loudness": "lufs"}, {"channels": 0}, {"channels": 3}])
    def test_other_values_are_refused(self, field: dict[str, Any]) -> None:
        error = refusal(message("edit.style", **field) | {"schema_version": 7}, InvalidJob)

        assert error.field == next(iter(field))

    @pytest.mark.parametrize("task", ["edit.speech", "generate.t2a"])
    def test_other_tasks_have_none(self, task: str) -> None:
        error = refusal(message(task) | {"task": message(task)["task"] | {"loudness": "source"}}, InvalidJob)

        assert error.field == "loudness"


class TestQuality:
    def test_exact_is_what_every_release_takes(self) -> None:
        job = read_job(message("generate.t2a", quality="exact"))

        assert isinstance(job, GenerateJob)
        assert (job.quality, job.steps) == ("exact", 100)
        assert "quality" not in job.model_dump(mode="json")

    @pytest.mark.parametrize("task", ["generate.tts", "edit.add"])
    def test_fast_takes_fewer_steps_unless_told_otherwise(self, task: str) -> None:
        jobs = [read_job(message(task, quality="fast", schema_version=2, **steps)) for steps in ({}, {"steps": 50})]

        assert [job.steps for job in jobs if not isinstance(job, UnderstandJob)] == [25, 50]
        assert [read_job(json.loads(job.model_dump_json())) for job in jobs] == jobs

    def test_fast_is_no_job_of_the_first_schema_version(self) -> None:
        error = refusal(message("generate.t2a", quality="fast"), InvalidJob)

        assert error.field == "quality"
        assert error.remedy == "Set schema_version to 2"

    def test_another_quality_is_refused(self) -> None:
        assert refusal(message("generate.t2a", quality="good", schema_version=2), InvalidJob).field == "quality"


class TestAudioTrack:
    def test_a_track_is_asked_for_in_the_third_schema_version(self) -> None:
        job = read_job(message("edit.add", audio_track=1, schema_version=3))

        assert job.audio_track == 1
        assert read_job(json.loads(job.model_dump_json())) == job

    @pytest.mark.parametrize("version", [1, 2])
    def test_older_versions_have_none(self, version: int) -> None:
        error = refusal(message("edit.add", audio_track=1, schema_version=version), InvalidJob)

        assert (error.field, error.remedy) == ("audio_track", "Set schema_version to 3")

    def test_a_job_without_one_is_written_without_the_field(self) -> None:
        assert "audio_track" not in read_job(message("edit.add")).model_dump(mode="json")

    @pytest.mark.parametrize("task", ["generate.t2a", "generate.v2a"])
    def test_a_job_without_audio_has_no_tracks(self, task: str) -> None:
        assert refusal(message(task, audio_track=0, schema_version=3), InvalidJob).field == "audio_track"

    @pytest.mark.parametrize("track", [-1, 32, 1.5, "one"])
    def test_what_is_no_number_of_a_track_is_refused(self, track: object) -> None:
        assert refusal(message("edit.add", audio_track=track, schema_version=3), InvalidJob).field == "audio_track"
