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
}
_SOUND = {"task": "generate.t2a", "text": "rain on a tin roof", "seconds": 2, "steps": 4}
_EDIT = {"job": {"task": "edit.add", "desc": "rain sounds", "steps": 4}, "audio": "street.wav"}
JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _JOB, "example": _SOUND},
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["job"], "properties": {"job": _JOB, **_FILES}},
                "example": _EDIT,
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
                },
                "example": {"file": "street.wav"},
            }
        },
    }
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events named progress, part and outcome; each has JSON as its data."},
    204: {"description": "Last-Event-ID was the outcome: nothing more comes."},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": meaning,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "error": {
                            "type": "object",
                            "properties": {name: {"type": "string"} for name in ("message", "type", "param", "code")},
                        }
                    },
                }
            }
        },
    }
    for status, meaning in {
        "4XX": "The request is refused; `error` says why, `param` for which of its fields.",
        "5XX": "The fleet or the gateway failed; with 503 come back after `Retry-After` seconds.",
    }.items()
}
"""Of every request."""
