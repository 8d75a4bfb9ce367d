"""openapi.json: its examples are sent as they stand, and each does what it is an example of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.data import media_files
from support.gateway.process import Gateway, Part

IN_PATHS = {"kind": "audio", "number": "1", "name": "audio-omni"}
"""Values of the paths' parameters, besides the job's id."""


@pytest.fixture(scope="module")
def description(omnigate: Gateway) -> dict[str, Any]:
    return omnigate.with_key(None).get("/openapi.json").json  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def job_id(omnigate: Gateway) -> str:
    """Of a job that has everything: parts, and a sound."""
    sound = {"task": "generate.t2a", "text": "rain", "seconds": 25, "steps": 2, "stream": True}
    return str(omnigate.wait(omnigate.send(**sound))["id"])


def resolve(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return description["components"]["schemas"][name] if name else schema  # type: ignore[no-any-return]


def is_file(schema: dict[str, Any]) -> bool:
    return schema.get("format") == "binary" or "contentMediaType" in schema


def parts_of(schema: dict[str, Any], example: dict[str, Any]) -> list[Part]:
    sound = media_files.wav(0.5)
    return [
        Part(name, sound, value)
        if is_file(schema["properties"][name])
        else Part(name, (value if isinstance(value, str) else json.dumps(value)).encode())
        for name, value in example.items()
    ]


def test_every_example_is_answered_as_it_should_be(omnigate: Gateway, description: dict[str, Any], job_id: str) -> None:
    answered: dict[str, int] = {}
    for path, operations in description["paths"].items():
        address = path.format(job_id=job_id, **{name: IN_PATHS.get(name) for name in IN_PATHS})
        for method, operation in operations.items():
            bodies = operation.get("requestBody", {}).get("content", {})
            for kind, body in bodies.items():
                schema = resolve(description, body["schema"])
                example = body.get("example") or schema["example"]
                if kind == "application/json":
                    answer = omnigate.post(address, example)
                else:
                    answer = omnigate.post_form(address, *parts_of(schema, example))
                answered[f"{method} {path} {kind}"] = answer.status
            if not bodies:
                answered[f"{method} {path}"] = omnigate.ask(method.upper(), address).status

    assert {name: status for name, status in answered.items() if not 200 <= status < 300} == {}
    assert len(answered) > 12


def test_what_is_refused_is_described_as_it_comes(omnigate: Gateway, description: dict[str, Any]) -> None:
    operation = description["paths"]["/v1/jobs"]["post"]
    described = operation["responses"]["4XX"]["content"]["application/json"]["schema"]["properties"]["error"]

    refused = omnigate.post("/v1/jobs", {})

    assert refused.status == 400
    assert set(described["properties"]) <= set(refused.error)
    # FastAPI's own error, which nobody is sent.
    assert "HTTPValidationError" not in description["components"]["schemas"]
