"""The commands of the gateway's page, run as their readers would, at a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support import markdown
from support.data import media_files
from support.gateway.process import WAIT, Gateway
from support.markdown import ROOT, Block
from support.scripted_fleet import ScriptedFleet

PAGE = ROOT / "docs/how-to/gateway.md"
CALLS = [block for block in markdown.blocks_of(PAGE) if block.language == "sh" and "$GATEWAY" in block.code]


@pytest.mark.parametrize("block", CALLS, ids=lambda block: f"line-{block.line}")
def test_a_call_of_the_page_does_what_it_says(
    omnigate: Gateway, fleet: ScriptedFleet, tmp_path: Path, block: Block
) -> None:
    (tmp_path / "street.wav").write_bytes(media_files.wav(0.5))
    environment = os.environ | {"GATEWAY": omnigate.url, "KEY": omnigate.key or ""}

    done = subprocess.run(
        ["sh", "-euc", block.code.replace("curl", "curl --fail-with-body")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for file in tmp_path.glob("*.json"):
        assert json.loads(file.read_text())["object"] in ("job", "upload", "list")


def test_the_page_has_calls() -> None:
    assert len(CALLS) >= 3


def test_every_path_of_the_page_is_one_of_the_gateway(omnigate: Gateway) -> None:
    paths = omnigate.get("/openapi.json").json["paths"]
    described = {
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/models",
        "/v1/voices",
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/events",
        "/v1/jobs/{job_id}/{kind}",
        "/v1/uploads",
    }

    assert described <= paths.keys()
    text = PAGE.read_text()
    for path in described - {"/v1/jobs/{job_id}/{kind}"}:
        assert path.replace("{job_id}", "{id}") in text
