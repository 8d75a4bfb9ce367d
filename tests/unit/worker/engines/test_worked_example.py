"""The engine that docs/engines.md builds, run as a worker runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.table import load_model
from omnifleet_worker.models.speech_model import SpeechInputs
from omnifleet_worker.settings import WorkerSettings
from support import ROOT, markdown


@pytest.fixture
def morse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    (code,) = (one.code for one in markdown.blocks_of(ROOT / "docs/engines.md") if "class Morse" in one.code)
    assert len(code.splitlines()) < 100
    (tmp_path / "morse.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return WorkerSettings(checkpoint=tmp_path, engine="morse")


def test_it_speaks(morse: WorkerSettings) -> None:
    loaded = load_model(morse)
    engine = Engine(loaded.runner, loaded.limits)
    requests = [engine.submit(Request(inputs=SpeechInputs(text=text, most_steps=9, seed=0))) for text in ("SOS", "E")]

    while engine.step():
        pass

    sos, dot = (request.outcome.result() for request in requests)
    dots = sos.shape[1] / 1280
    assert dots == 3 * 2 + 3 * 4 + 3 * 2 + 3 * 2
    assert np.abs(dot[0, :1280]).max() > 0.4 and not dot[0, 1280:].any()
    assert loaded.model.capabilities.commercial
