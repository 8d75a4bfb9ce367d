"""The choice of a job's model, as a function: whatever is known of the models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet.routing.route import KnownModel, route
from omnifleet_shared.errors import (
    InvalidJob,
    LanguageNotSupported,
    LicenceRefused,
    NoModelFor,
    OmnifleetError,
    TaskNotSupported,
)
from omnifleet_shared.schema.capabilities import Capabilities, TaskCapability
from omnifleet_shared.schema.jobs import Job, read_job

LANGUAGES = ("en", "ru", "yue")
TASKS = ("generate.tts", "generate.t2a", "understand.transcribe")
RECORDING = {"uri": "s3://media/inputs/voice.wav"}


def capabilities(name: str, **fields: Any) -> Capabilities:
    languages = fields.pop("languages", None)
    tasks = {task: TaskCapability(languages=languages) for task in fields.pop("tasks", ("generate.tts",))}
    return Capabilities(name=name, engine="scripted", licence=f"the licence of {name}", tasks=tasks, **fields)


def model(name: str, *, live: bool = True, preferred: bool = True, **fields: Any) -> KnownModel:
    known = [capabilities(name, **fields)]
    return KnownModel(name=name, queue=f"q.{name}", capabilities=known, live=live, preferred=preferred)


def speech(**fields: Any) -> Job:
    task = {"name": "tts", "text": "42", **fields.pop("task", {})}
    return read_job({"schema_version": 6, "namespace": "generate", "task": task, **fields})


ENGLISH = model("english", languages=("en",))
POLYGLOT = model("polyglot", commercial_use=True, revision="r7")


def test_the_first_that_can_do_it_is_chosen_and_the_reason_told() -> None:
    chosen = route(speech(), [ENGLISH, POLYGLOT])

    assert (chosen.model, chosen.queue, chosen.live) == ("english", "q.english", True)
    assert chosen.reason == "the first of english, polyglot that can do it"


def test_one_that_cannot_is_passed_over_and_the_reason_says_why() -> None:
    chosen = route(speech(language="ru"), [ENGLISH, POLYGLOT])

    assert (chosen.model, chosen.revision, chosen.licence) == ("polyglot", "r7", "the licence of polyglot")
    assert "english: english was not trained on language 'ru'" in chosen.reason


def test_commercial_jobs_go_where_they_may() -> None:
    assert route(speech(commercial=True), [ENGLISH, POLYGLOT]).model == "polyglot"


def test_one_with_a_ready_worker_comes_first() -> None:
    idle = model("idle", live=False)

    chosen = route(speech(), [idle, ENGLISH])

    assert chosen.model == "english"
    assert "idle: no worker of it is ready" in chosen.reason


def test_where_none_is_ready_the_first_is_waited_for_or_the_caller_told() -> None:
    idle = [model("one", live=False), model("two", live=False)]

    chosen = route(speech(), idle)
    with pytest.raises(NoModelFor, match="one or two") as refused:
        route(speech(), idle, wait=False)

    assert (chosen.model, chosen.live) == ("one", False)
    assert "waits for one" in chosen.reason
    assert refused.value.details["models"] == ["one", "two"]


def test_a_model_that_is_asked_for_by_name_is_chosen_or_none() -> None:
    chosen = route(speech(), [ENGLISH, POLYGLOT], pinned="polyglot")

    assert (chosen.model, chosen.reason) == ("polyglot", "asked for by name")
    with pytest.raises(LanguageNotSupported) as refused:
        route(speech(language="ru"), [ENGLISH, POLYGLOT], pinned="english")
    assert refused.value.details["models"] == ["polyglot"]
    assert 'model="polyglot"' in (refused.value.remedy or "")
    with pytest.raises(InvalidJob, match="no model 'parrot' is known") as unknown:
        route(speech(), [ENGLISH, POLYGLOT], pinned="parrot")
    assert (unknown.value.field, "english, polyglot" in (unknown.value.remedy or "")) == ("model", True)


def test_one_of_which_nobody_knows_what_it_can_do_is_waited_for_only_by_name() -> None:
    silent = KnownModel(name="silent", queue="q.silent", capabilities=(), live=False, preferred=True)

    assert route(speech(), [silent, ENGLISH]).model == "english"
    assert route(speech(), [silent, ENGLISH], pinned="silent").model == "silent"
    with pytest.raises(TaskNotSupported, match="has said what it can do"):
        route(speech(), [silent])


def test_one_that_is_not_preferred_is_named_and_not_chosen() -> None:
    other = model("other", preferred=False)

    with pytest.raises(LanguageNotSupported) as refused:
        route(speech(language="ru"), [ENGLISH, other])

    assert refused.value.details["models"] == ["other"]
    assert refused.value.details["refused"] == {"english": "english was not trained on language 'ru'"}


def test_the_error_is_that_of_the_nearest_model_and_names_all() -> None:
    deaf = model("deaf", tasks=("generate.t2a",), commercial_use=True)
    russian = model("russian", languages=("ru",))

    with pytest.raises(LicenceRefused, match="russian is under") as refused:
        route(speech(language="ru", commercial=True), [deaf, ENGLISH, russian])

    assert set(refused.value.details["refused"]) == {"deaf", "english", "russian"}
    assert "deaf cannot do generate.tts" in refused.value.problem


def test_workers_of_one_queue_that_differ_must_all_be_able_to() -> None:
    old, new = capabilities("one", languages=("en",)), capabilities("one", languages=("en", "ru"))
    mixed = KnownModel(name="one", queue="q.one", capabilities=[old, new], live=True, preferred=True)

    assert route(speech(language="en"), [mixed]).model == "one"
    assert route(speech(language="ru"), [mixed, POLYGLOT]).model == "polyglot"


CAPABILITIES = st.builds(
    capabilities,
    st.just("any"),
    tasks=st.sets(st.sampled_from(TASKS)),
    languages=st.none() | st.lists(st.sampled_from(LANGUAGES), unique=True).map(tuple),
    commercial_use=st.booleans(),
    cloning=st.booleans(),
    needs_transcript=st.booleans(),
    streaming=st.booleans(),
)
MODELS = st.lists(
    st.builds(
        KnownModel,
        name=st.sampled_from("abcdef"),
        queue=st.just("q"),
        capabilities=st.lists(CAPABILITIES, max_size=2),
        live=st.booleans(),
        preferred=st.booleans(),
    ),
    unique_by=lambda one: one.name,
    max_size=5,
)
JOBS = st.builds(
    speech,
    language=st.none() | st.sampled_from(LANGUAGES),
    commercial=st.booleans(),
    stream=st.booleans(),
    task=st.sampled_from([{}, {"ref": RECORDING}, {"ref": RECORDING, "ref_text": "Hello"}]),
)


def outcome(*about: Any, **options: Any) -> Any:
    try:
        return route(*about, **options)
    except OmnifleetError as error:
        return type(error), error.args


@given(job=JOBS, models=MODELS, wait=st.booleans())
def test_the_choice_satisfies_every_filter_and_the_order(job: Job, models: list[KnownModel], wait: bool) -> None:
    able = [one for one in models if one.preferred and one.capabilities and not one.refusals(job)]
    live = [one for one in able if one.live]

    found = outcome(job, models, wait=wait)

    if not any(one.preferred for one in models) or not able:
        assert issubclass(found[0], InvalidJob)
    elif not live and not wait:
        assert found[0] is NoModelFor
    else:
        assert found.model == (live or able)[0].name
        assert found.live == bool(live)
    assert found == outcome(job, models, wait=wait)


@given(job=JOBS, models=MODELS, name=st.sampled_from("abcdef"))
def test_a_pinned_model_is_chosen_or_nothing(job: Job, models: list[KnownModel], name: str) -> None:
    found = outcome(job, models, pinned=name)

    (pinned,) = [one for one in models if one.name == name] or [None]
    if pinned is None or pinned.refusals(job):
        assert issubclass(found[0], InvalidJob)
    else:
        assert found.model == name


def test_a_job_with_an_adapter_goes_to_a_model_that_takes_them() -> None:
    adapter = {"name": "rain", "sha256": "0" * 64}
    job = read_job(
        {"schema_version": 9, "namespace": "generate", "task": {"name": "tts", "text": "42"}, "adapter": adapter}
    )
    other = model("other", adapters=True)

    assert route(job, [POLYGLOT, other]).model == "other"
    with pytest.raises(TaskNotSupported, match="polyglot takes no adapters") as refused:
        route(job, [POLYGLOT])
    assert refused.value.field == "adapter"
