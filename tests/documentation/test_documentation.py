"""README, docs and the pages beside them: their code runs, and what they name is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import omnifleet
import omnifleet.local
import promql_parser
import pytest
import yaml
from omnifleet import MediaTooLong, SignatureInvalid
from omnifleet.cli import app
from omnifleet.testing import FakeAsyncClient, FakeClient
from omnifleet_shared.schema.callback import failed
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.webhooks.signatures import sign_callback
from omnifleet_worker.service.protocol.commands import REFUSED as REFUSED_COMMANDS
from omnifleet_worker.service.protocol.controller import REFUSED as REFUSED_OPTIONS
from support import command_lines, markdown
from support.data import media_files
from support.data.adapter_folders import write_folder
from support.markdown import ROOT, Block
from support.scripted_fleet import ScriptedFleet
from typer.testing import CliRunner

README = ROOT / "README.md"
BATCH = ROOT / "docs/how-to/batch.md"
CELERY = ROOT / "docs/how-to/celery.md"
REPOSITORY = "https://github.com/omnifleet/omnifleet"
SECRET = "a secret of this very test"
MOST_WORDS = 700
MOST_MODULES = 40
RECORDINGS = ("street.wav", "beach.wav", "voice.wav", "call.wav", "call.mp3", "one.wav", "two.wav", "silent.mp4")
LANGUAGES = {"python", "sh", "json", "jsonl", "csv", "promql"}


def page_id(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder with recordings, where every client is one of a fleet in memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(omnifleet, "Client", FakeClient)
    monkeypatch.setattr(omnifleet, "AsyncClient", FakeAsyncClient)
    monkeypatch.setattr(omnifleet.local, "LocalModel", lambda checkpoint: FakeClient())
    write_folder(tmp_path / "examples/train/run/adapter")
    for name in RECORDINGS:
        (tmp_path / name).write_bytes(name.encode() + media_files.wav(0.1, 16_000))
    return tmp_path


def run_python(page: Path) -> dict[str, Any]:
    """Run the page's Python from top to bottom, and give what it defined. A fault names its line in the page."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block in [block for block in markdown.blocks_of(page) if block.language == "python"]:
        code = "\n" * (block.line - 1) + block.code
        exec(compile(code, str(page), "exec"), names)
    return names


def pages_with_python() -> list[Path]:
    """Those whose clients may be fakes."""
    return [page for page in dict.fromkeys(block.page for block in markdown.blocks("python")) if page != CELERY]


@pytest.mark.parametrize("page", pages_with_python(), ids=page_id)
@pytest.mark.usefixtures("desk")
def test_the_python_of_a_page_runs(page: Path) -> None:
    run_python(page)


def test_every_block_is_in_a_language_that_a_test_knows() -> None:
    assert {block.language for block in markdown.blocks()} == LANGUAGES


@pytest.mark.usefixtures("desk")
def test_the_calls_of_the_readme_do_what_they_say() -> None:
    names = run_python(README)

    assert names["text"] == "A fake answer to transcribe."
    assert [f"{job.namespace}.{job.task.name}" for job in names["omni"].jobs] == [
        "edit.add",
        "understand.transcribe",
        "generate.tts",
    ]
    assert Path("street-rain.flac").exists()
    assert Path("hello.wav").exists()


def test_the_code_of_the_celery_page_runs_on_a_fleet(
    scripted: ScriptedFleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = scripted.start()
    monkeypatch.setenv("OMNIFLEET_REDIS_URL", scripted.settings.redis_url)

    names = run_python(CELERY)
    # A result that is dropped later would unsubscribe from a Redis that has ended.
    names["app"].backend.result_consumer.cancel_for = lambda _: None

    assert capsys.readouterr().out == f"Is it raining? by {worker.pid}\n"
    assert names["texts"] == [f"Is it day? by {worker.pid}", f"Is it night? by {worker.pid}"]


def test_the_tables_of_the_celery_page_name_what_is_refused() -> None:
    told = " ".join(line for line in CELERY.read_text().splitlines() if "refused" in line)

    assert [name for name in [*REFUSED_COMMANDS, *dict(REFUSED_OPTIONS.values())] if name not in told] == []


@pytest.mark.usefixtures("desk")
def test_the_asyncio_page_transcribes_and_shows_progress(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(ROOT / "docs/how-to/asyncio.md")

    assert names["texts"] == ["A fake answer to transcribe."] * 2
    assert "0/0" in capsys.readouterr().out


@pytest.mark.usefixtures("desk")
def test_the_receiver_of_the_callbacks_page_verifies_and_notes_each_delivery_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    receive = run_python(ROOT / "docs/how-to/callbacks.md")["receive"]
    body = failed("job-1", MediaTooLong("it is 400 s long", "audio"), "d-1").model_dump_json().encode()

    for _ in range(2):
        receive(body, sign_callback(body, "d-1", SECRET), SECRET)

    assert capsys.readouterr().out == "job-1 failed: audio: it is 400 s long.\n"
    with pytest.raises(SignatureInvalid):
        receive(body, sign_callback(body, "d-1", "another"), SECRET)


@pytest.mark.parametrize("block", markdown.blocks("sh"), ids=page_id)
def test_the_commands_of_a_block_are_those_of_their_programs(block: Block) -> None:
    for command in command_lines.commands_of(block.code):
        command_lines.check(command)


@pytest.mark.parametrize(
    "command",
    ["omnifleet edit Add", "omnifleet tpo", "make dmeo", "make up PROFIL=gpu", "frobnicate", "python nowhere.py"],
)
def test_a_command_that_does_not_exist_would_be_found(command: str) -> None:
    (words,) = command_lines.commands_of(command)

    with pytest.raises(Exception, match=r"(?i)missing parameter|has no|nobody knows|is not there"):
        command_lines.check(words)


@pytest.mark.parametrize("page", markdown.pages(), ids=page_id)
def test_the_commands_in_a_page_s_prose_exist(page: Path) -> None:
    for code in markdown.inline_code(page):
        program, *arguments = code.split() or [""]
        if program in command_lines.PROGRAMS:
            command, rest = command_lines.resolve(program, arguments)
            command_lines.check_options(command, rest)
        elif re.fullmatch(r"make [a-z-]+(?: [A-Z_]+=\S+)*", code):
            command_lines.check_make(arguments)


@pytest.mark.parametrize("page", markdown.pages(), ids=page_id)
def test_the_settings_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"\bOMNIFLEET_[A-Z0-9_]+\b", page.read_text())

    for name in named:
        assert name in command_lines.SETTINGS, name


@pytest.mark.parametrize("page", markdown.pages(), ids=page_id)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = [code for code in markdown.inline_code(page) if re.fullmatch(rf"(?:{folders})/[\w./-]*", code)]

    assert [name for name in named if not (ROOT / name).exists() and name != "docker/.env"] == []


@pytest.mark.parametrize("page", [page for page in markdown.pages() if page.parent == ROOT], ids=page_id)
def test_the_links_of_a_page_at_the_root_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    inside = [re.sub(r"^(?:blob|tree)/main/", "", link.removeprefix(f"{REPOSITORY}/")) for link in links]
    paths = [link for link in inside if ":" not in link and not link.startswith(("security/", "commits/"))]

    assert [path for path in paths if not (ROOT / path).exists()] == []
    if page == README:  # PyPI shows it too, which knows no other file
        assert all(link.startswith("https://") for link in links)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS


def test_the_picture_of_the_readme_is_the_one_of_the_docs() -> None:
    (picture,) = re.findall(r"raw\.githubusercontent\.com/omnifleet/omnifleet/main/([\w/.]+)", README.read_text())

    assert (ROOT / picture).read_text().startswith("<svg")


def main_path() -> Iterator[Path]:
    """The files in the table of a job's way; one without a package's folder lies in that of the file before it."""
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("## One job's way")[2].partition("\nBeside it")[0]
    package = Path()
    for name in re.findall(r"`([\w/]+\.py)`", table):
        if name.split("/")[0] in ("shared", "producer", "worker"):
            package = Path(*Path(name).parts[:2])
            yield ROOT / name
        else:
            yield ROOT / package / name


def test_the_main_path_is_named_file_by_file_and_short() -> None:
    files = list(main_path())

    assert [str(path) for path in files if not path.exists()] == []
    assert len(set(files)) == len(files) <= MOST_MODULES
    assert len(files) > MOST_MODULES / 2


def test_a_job_in_a_page_is_one_of_the_contract() -> None:
    jobs = [json.loads(block.code) for block in markdown.blocks("json")]

    assert [read_job(job).job_id for job in jobs]


def test_the_job_list_in_json_lines_runs(desk: Path) -> None:
    (block,) = markdown.blocks("jsonl")
    requests = [json.loads(line) for line in block.code.splitlines()]

    outcomes = list(FakeClient().batch(requests))

    assert [outcome.error for outcome in outcomes] == [None] * len(requests)


def test_the_job_list_in_csv_passes_the_check_of_its_page(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (table,) = markdown.blocks("csv")
    (desk / "clips.csv").write_text(table.code)
    monkeypatch.setenv("OMNIFLEET_STORAGE", f"file://{desk}")
    commands = [one for block in markdown.blocks_of(BATCH) for one in command_lines.commands_of(block.code)]
    (checking,) = [command for command in commands if "--check" in command]

    done = CliRunner().invoke(app, checking[1:])

    assert done.exit_code == 0, done.output


def test_the_queries_of_the_operators_page_parse() -> None:
    for block in markdown.blocks("promql"):
        promql_parser.parse(block.code)


def test_the_code_cites_sections_of_the_model_s_page_that_are_there() -> None:
    headings = set(re.findall(r"^#+ (.+)$|^\*\*(.+?)\.?\*\*", (ROOT / "docs/model.md").read_text(), re.MULTILINE))
    known = {name for pair in headings for name in pair}
    sources = [path for folder in ("worker", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    cited = {name for path in sources for name in re.findall(r'docs/model\.md, "([^"]+)"', path.read_text())}

    assert cited
    assert {name for name in cited if not any(heading.startswith(name) for heading in known)} == set()


def test_pre_commit_runs_the_linters_of_ci() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", command_lines.MAKEFILE, re.MULTILINE)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert recipe

    linters = re.findall(r"\$\(BIN\)/([\w-]+(?: check| format)?)\b", recipe[1])

    assert {re.findall(r"bin/([\w-]+(?: check| format)?)\b", hook["entry"])[0] for hook in hooks} == set(linters)
