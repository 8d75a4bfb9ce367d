"""The page's modules, in a browser: tasks and calls as the programs read them, sound and events as they are."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet import Client
from omnifleet.cli.app import app
from omnifleet.request.build import ARGUMENTS
from omnifleet.request.request import MEDIA
from omnifleet_shared.schema.tasks import TASK_NAMES, Namespace
from support.gateway.process import Gateway
from support.gateway.visitor import Visitor, visitor

NOT_ASKED = {"task", "history", "callback", "idempotency_key", "wait"}
"""Arguments of calls that the page has no field for: they are for programs."""
TEXT = '-it\'s "rain"\n$(id) `id` \\n é 𝄞 <b>;type=x'
NAME = "-<img onerror=x> 'a' \"b\" \\;type=x $(id).wav"
VALUES: dict[str, Any] = {
    "number": 2,
    "check": True,
    "span": [1.5, 2.75],
}


@pytest.fixture(scope="module")
def page(omnigate: Gateway) -> Iterator[Visitor]:
    with visitor(omnigate.url) as opened:
        opened.open("/")
        yield opened


@pytest.fixture(scope="module")
def tasks(page: Visitor) -> dict[str, dict[str, dict[str, Any]]]:
    """The page's tasks, with their fields."""
    listed = (
        "Object.fromEntries(Object.entries(module.TASKS).map(([space, tasks]) => [space, Object.fromEntries("
        "Object.keys(tasks).map((name) => [name, module.fieldsOf(space, name)]))]))"
    )
    return page.of_module("tasks.js", listed)  # type: ignore[no-any-return]


READ = """(async () => {
    const body = new ReadableStream({start(stream) {
        for (const bytes of given[0]) stream.enqueue(Uint8Array.from(bytes));
        stream.close();
    }});
    const found = [];
    for await (const event of module.readEvents(body)) found.push(event);
    return found;
})()"""


def requests(tasks: dict[str, dict[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """One of each task with nothing more than it needs, and one with everything."""
    for namespace, names in tasks.items():
        for name, fields in names.items():
            everything = [*fields["about"], *fields["options"]]
            for some in ([field for field in everything if field["needed"]], everything):
                files = {one["name"]: [{"name": NAME}] for one in some if one["kind"] in ("file", "voice")}
                filled = {one["name"]: value_of(one) for one in some if one["name"] not in files}
                yield {"namespace": namespace, "name": name, "fields": filled, "files": files}
    for name in ("voice:anna.wav", "C:x.wav"):
        yield {
            "namespace": "generate",
            "name": "vc",
            "fields": {},
            "files": {one: [{"name": name}] for one in ("ref", "audio")},
        }
    yield {"namespace": "generate", "name": "tts", "fields": {"text": "Hi", "ref": "voice:anna"}, "files": {}}
    several = [{"name": "a b.wav"}, {"name": "-c.wav"}]
    yield {"namespace": "understand", "name": "question", "fields": {"question": "Who?"}, "files": {"audio": several}}


def value_of(field: dict[str, Any]) -> Any:
    if field["kind"] == "choice":
        chosen = field["options"][-1][0]
        return int(chosen) if field.get("number") else chosen
    return "en" if field["name"] == "language" else VALUES.get(field["kind"], TEXT)


def paths(request: dict[str, Any]) -> dict[str, list[str]]:
    return {field: [local(file["name"]) for file in files] for field, files in request["files"].items()}


def local(name: str) -> str:
    return f"./{name}" if re.match("-|[a-z]+:", name, re.IGNORECASE) else name


def expected(request: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the call, without its task."""
    files = {field: some[0] if len(some) == 1 else some for field, some in paths(request).items()}
    return {**request["fields"], **files}


class TestTasks:
    def test_all_tasks_are_offered(self, tasks: dict[str, dict[str, Any]]) -> None:
        assert {space: set(names) for space, names in tasks.items()} == {
            space: set(names) for space, names in TASK_NAMES.items()
        }

    @pytest.mark.parametrize("namespace", get_args(Namespace))
    def test_all_arguments_can_be_given(self, tasks: dict[str, dict[str, Any]], namespace: Namespace) -> None:
        asked = {
            field["name"] for fields in tasks[namespace].values() for field in (*fields["about"], *fields["options"])
        }

        assert asked == ARGUMENTS[namespace] - NOT_ASKED
        files = {
            field["name"]
            for fields in tasks[namespace].values()
            for field in fields["about"]
            if field["kind"] in ("file", "voice")
        }
        assert files == set(MEDIA[namespace])


class TestCalls:
    def test_python_makes_the_same_call(self, page: Visitor, tasks: dict[str, dict[str, Any]]) -> None:
        for request in requests(tasks):
            text = page.of_module("calls.js", "module.pythonCall(given[0])", request)
            (call,) = [
                node
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Call) and ast.unparse(node.func) == f"omni.{request['namespace']}"
            ]
            values = [ast.literal_eval(one) for one in call.args]
            named = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
            function = getattr(Client, request["namespace"])
            bound = inspect.signature(function).bind(None, *values, **named).arguments
            del bound["self"]
            options = bound.pop("options", {})
            given = {**bound, **options}
            if "span" in given:
                given["span"] = list(given["span"])

            task = {} if request["name"] == "question" else {"task": request["name"]}
            assert given == {**task, **expected(request)}, text

    def test_curl_sends_the_same_job(self, page: Visitor, tasks: dict[str, dict[str, Any]]) -> None:
        for request in requests(tasks):
            text = page.of_module("calls.js", "module.curlCall(given[0], 'http://here:1/')", request)
            words = shlex.split(text)
            assert words[:3] == ["curl", "-sS", "http://here:1/v1/jobs?wait=60"]
            assert "Authorization: Bearer $OMNIFLEET_KEY" in words
            body = [words[at + 1] for at, word in enumerate(words) if word in ("--data-raw", "--form-string")]
            files = [words[at + 1] for at, word in enumerate(words) if word == "-F"]

            task = (
                request["namespace"] if request["name"] == "question" else f"{request['namespace']}.{request['name']}"
            )
            assert json.loads(body[0].removeprefix("job=")) == {"task": task, **request["fields"]}, text
            named = [f'{field}=@"{escape(file["name"])}"' for field, some in request["files"].items() for file in some]
            assert sorted(files) == sorted(named)  # a request comes back from the browser in another order

    def test_the_command_line_makes_the_same_call(self, page: Visitor, tasks: dict[str, dict[str, Any]]) -> None:
        program: Any = typer.main.get_command(app)
        for request in requests(tasks):
            text = page.of_module("calls.js", "module.commandCall(given[0])", request)
            name, namespace, *arguments = shlex.split(text)
            assert name == "omnifleet"
            command = program.commands[namespace]
            parsed = command.make_context(namespace, arguments).params
            given = {field: value for field, value in parsed.items() if value not in (None, False, [], ())}

            wanted = {**request["fields"], **paths(request)}
            stream, wanted_format = wanted.pop("stream", False), wanted.pop("format", None)
            assert (str(given.pop("output", "")) == "-") == stream
            assert given.pop("audio_format", None) == wanted_format
            if "span" in wanted:
                wanted["span"] = "1.5-2.75"
            wanted["task"] = None if request["name"] == "question" else request["name"]
            assert _as_given(request, given) == {field: value for field, value in wanted.items() if value}, text


def escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _as_given(request: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """With recordings as lists; where a question is asked, the first of them stands in place of the task."""
    found = dict(given)
    if request["namespace"] == "understand" and request["name"] == "question" and found.get("task"):
        found["audio"] = [found.pop("task"), *found.get("audio", [])]
    listed = {
        field: list(found[field]) if isinstance(found[field], list | tuple) else [found[field]]
        for field in paths(request)
    }
    return {**found, **listed}


class TestSound:
    def test_the_power_of_each_frequency_is_that_of_numpy(self, page: Visitor) -> None:
        samples = np.random.default_rng(1).normal(size=3000)
        start = -500  # before the first sample there is silence
        found = page.of_module(
            "sound.js", f"[...new module.Transform(2048).power(given[0], {start})]", samples.tolist()
        )

        window = np.hanning(2048)
        frame = np.concatenate([np.zeros(500), samples])[:2048] * window
        power = np.abs(np.fft.rfft(frame)) ** 2 / (window.sum() / 2) ** 2
        np.testing.assert_allclose(found, power, rtol=1e-6, atol=1e-12)

    def test_a_place_is_that_of_the_same_words(self, page: Visitor) -> None:
        spans = [{"from": [1, 2], "to": [1, 3]}, {"from": [5, 6], "to": [6, 6.5]}]
        there = [page.of_module("comparison.js", "module.translate(given[0], given[1])", at, spans) for at in range(9)]
        back = [{"from": one["to"], "to": one["from"]} for one in spans]

        assert there == [0, 1, 3, 4, 5, 6, 6.5, 7.5, 8.5]
        again = [page.of_module("comparison.js", "module.translate(given[0], given[1])", at, back) for at in there]
        assert again == pytest.approx(list(range(9)))


class TestEvents:
    @settings(max_examples=40, deadline=None)
    @given(cuts=st.lists(st.integers(0, 200), max_size=12), texts=st.lists(st.text(max_size=9), max_size=4))
    def test_they_are_read_however_they_are_cut(self, page: Visitor, cuts: list[int], texts: list[str]) -> None:
        """In the middle of a letter, too."""
        stream = ": a sign of life\n\n" + "".join(
            f"event: part\nid: {number}\nretry: 1000\ndata: {json.dumps(text, ensure_ascii=False)}\n\n"
            for number, text in enumerate(texts)
        )
        data = (stream + "data: broken o").encode()
        places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        pieces = [list(data[start:end]) for start, end in pairwise(places)]

        found = page.of_module("gateway.js", READ, pieces)

        assert found == [{"name": "part", "id": str(number), "data": text} for number, text in enumerate(texts)]
