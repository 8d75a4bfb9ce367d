"""What FastAPI cannot see of the endpoints that read their bodies themselves, for openapi.json."""

from __future__ import annotations

from typing import Any

_FILES = {
    name: {"type": "string", "format": "binary", "description": meaning}
    for name, meaning in {
        "audio": "The recording; may be repeated to understand several.",
        "video": "The video.",
        "ref": "A recording of the voice to speak with.",
    }.items()
}
_JOB = {
    "type": "object",
    "required": ["task"],
    "properties": {
        "task": {"type": "string", "description": "With its namespace, such as generate.t2a or edit.add."},
    },
    "additionalProperties": True,
    "description": 'The arguments of the Python call. Media: the uri of an upload, or {"data": "<base64>"}.',
    "examples": [{"task": "generate.t2a", "text": "rain on a tin roof", "seconds": 5}],
}
JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _JOB},
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["job"], "properties": {"job": _JOB, **_FILES}},
                "encoding": {"job": {"contentType": "application/json"}},
            },
        },
    }
}
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events named progress, part and outcome; each has JSON as its data."},
    204: {"description": "Last-Event-ID was the outcome: nothing more comes."},
}
