"""The README's code for asyncio and for receivers of callbacks, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import omnifleet
import pytest
from omnifleet import MediaTooLong, SignatureInvalid
from omnifleet.testing import FakeAsyncClient
from omnifleet_shared.schema.callback import failed
from omnifleet_shared.webhooks.signatures import sign_callback

README = (Path(__file__).parents[2] / "README.md").read_text()
SECRET = "a secret of this very test"


def code(heading: str) -> str:
    """The first block of Python under a heading."""
    under = README.partition(f"### {heading}\n")[2]
    found = re.search(r"```python\n(.*?)```", under, re.DOTALL)
    assert found
    return found[1]


def test_the_asyncio_example_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(omnifleet, "AsyncClient", FakeAsyncClient)
    for name in ("one.wav", "two.wav"):
        (tmp_path / name).write_bytes(name.encode())
    names: dict[str, Any] = {}

    exec(code("asyncio"), names)

    assert names["texts"] == ["A fake answer to transcribe."] * 2
    assert "0/0" in capsys.readouterr().out


def test_the_receiver_of_callbacks_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(code("Callbacks"), names)
    body = failed("job-1", MediaTooLong("it is 400 s long", "audio"), "d-1").model_dump_json().encode()

    for _ in range(2):
        names["receive"](body, sign_callback(body, "d-1", SECRET), SECRET)

    assert capsys.readouterr().out == "job-1 failed: audio: it is 400 s long.\n"
    with pytest.raises(SignatureInvalid):
        names["receive"](body, sign_callback(body, "d-1", "another"), SECRET)


def test_the_commands_for_node_are_those_of_the_example() -> None:
    assert "cd examples/node && npm ci && node ask.js" in README
    assert (Path(__file__).parents[2] / "examples/node/ask.js").exists()
