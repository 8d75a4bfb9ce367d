"""Code that one machine compiled is stored beside the checkpoint, and fetched with it where that is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage, open_storage
from omnifleet_worker import model_loader
from omnifleet_worker.checkpoint.code_files import name_code, read_code, store_code, write_code
from omnifleet_worker.checkpoint.manifest import record_files, write_manifest
from omnifleet_worker.cli import app
from omnifleet_worker.settings import WorkerSettings
from support import services
from typer.testing import CliRunner

Run = Callable[..., Result]
_PROGRAM = """
import sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from omnifleet_worker.checkpoint.compiled_code import CompiledCode

code = CompiledCode(Path(sys.argv[1]), torch.device("cpu"), "float32")
print(code.load())
torch.compile(lambda x: (x.sin() * 2 + x.cos()).relu())(torch.ones(32))
print(counters["inductor"]["fxgraph_cache_miss"] + counters["aot_autograd"]["autograd_cache_miss"])
code.save()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A converted checkpoint of Audio-Omni, as far as files and manifest go."""
    root = tmp_path / "here/omni"
    root.mkdir(parents=True)
    for name in ("model_index.json", "weights"):
        (root / name).write_text(name)
    write_manifest(root, record_files(root, list(root.iterdir())))
    return root


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Where another machine has it."""
    return tmp_path / "elsewhere/omni"


@pytest.fixture
def stored(folder: Path, bucket: str, s3_server: services.S3Server) -> Storage:
    """The same in a bucket."""
    for path in folder.iterdir():
        s3_server.client().upload_file(str(path), bucket, f"omni/{path.name}")
    return open_storage(FleetSettings(storage=f"s3://{bucket}/omni", s3_endpoint=s3_server.endpoint))


@pytest.fixture
def run(stored: Storage, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of omnifleet-worker."""
    monkeypatch.setenv("OMNIFLEET_S3_ENDPOINT", s3_server.endpoint)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for minutes of compilation: what is kept of them is `code`."""
    monkeypatch.setattr("torch.compiler.save_cache_artifacts", lambda: (b"code", None))

    def open_model(settings: WorkerSettings) -> None:
        assert settings.compile == "on"
        model_loader.compiled_code(settings).save()

    monkeypatch.setattr(model_loader, "open_model", open_model)


def compile_in_new_process(checkpoint: Path, cache: Path) -> tuple[bool, int]:
    """Compile on a machine whose compiler knows what is in `cache`, and keep the code beside the checkpoint.

    Returns:
        Whether there was code for it, and how often the compiler found nothing and set to work.
    """
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", _PROGRAM, str(checkpoint)]
    there, misses = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return there == "True", int(misses)


def code_of(folder: Path) -> dict[str, bytes | None]:
    return {path.name: read_code(path) for path in (folder / "compiled").glob("*")}


def test_what_one_machine_compiled_another_does_not(
    run: Run, folder: Path, elsewhere: Path, stored: Storage, tmp_path: Path
) -> None:
    compile_in_new_process(folder, tmp_path / "cache-here")
    (code,) = (folder / "compiled").iterdir()
    store_code(stored, code)

    fetched = run("fetch-checkpoint", "--compiled", stored.uri(""), elsewhere)

    assert fetched.exit_code == 0, fetched.stderr
    assert f"compiled/{code.name} is there" in fetched.stderr.replace("\n", "")
    assert compile_in_new_process(elsewhere, tmp_path / "cache-elsewhere") == (True, 0)


@pytest.mark.usefixtures("compiler")
def test_a_command_compiles_and_stores(run: Run, folder: Path, elsewhere: Path, stored: Storage) -> None:
    done = run("compile", "--checkpoint", folder, "--store", stored.uri(""))
    fetched = run("fetch-checkpoint", "--compiled", stored.uri(""), elsewhere)

    assert (done.exit_code, fetched.exit_code) == (0, 0), done.stderr + fetched.stderr
    assert list(code_of(elsewhere).values()) == [b"code"]
    assert code_of(elsewhere) == code_of(folder)


@pytest.mark.usefixtures("compiler")
def test_code_is_stored_beside_its_own_checkpoint_alone(
    run: Run, folder: Path, stored: Storage, s3_server: services.S3Server, bucket: str
) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="omni/manifest.json", Body=b"{}")

    refused = run("compile", "--checkpoint", folder, "--store", stored.uri(""))
    unknown = run("compile", "--checkpoint", folder, "--store", f"s3://{bucket}/nothing")

    for one in (refused, unknown):
        assert "does not hold the checkpoint" in str(one.exception)
    assert not list(stored.list("compiled/"))
    assert not (folder / "compiled").exists()


@pytest.mark.usefixtures("compiler")
def test_a_folder_that_cannot_keep_the_code_is_refused(run: Run, folder: Path) -> None:
    (folder / "compiled").touch()

    assert "cannot be written" in str(run("compile", "--checkpoint", folder).exception)


def test_an_engine_that_compiles_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vits"}')

    assert "compiles nothing" in str(run("compile", "--checkpoint", tmp_path).exception)


def test_no_code_is_fetched_unless_it_is_asked_for_and_then_once(
    run: Run, elsewhere: Path, stored: Storage, tmp_path: Path
) -> None:
    mine, other = name_code("a device"), "a-device-0123456789abcdef.bin"
    for name in (mine, other):
        write_code(tmp_path / "compiled" / name, b"code")
        store_code(stored, tmp_path / "compiled" / name)

    assert run("fetch-checkpoint", stored.uri(""), elsewhere).exit_code == 0
    assert not (elsewhere / "compiled").exists()
    assert run("fetch-checkpoint", "--compiled", stored.uri(""), elsewhere).exit_code == 0
    assert code_of(elsewhere) == {mine: b"code"}  # that of another version is of no use

    write_code(elsewhere / "compiled" / mine, b"compiled here meanwhile")
    assert run("fetch-checkpoint", "--compiled", stored.uri(""), elsewhere).exit_code == 0
    assert code_of(elsewhere) == {mine: b"compiled here meanwhile"}


def test_damaged_code_is_left_out_and_replaced(
    run: Run, elsewhere: Path, stored: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = (tmp_path / "compiled" / name_code(device) for device in ("a device", "another"))
    for path in (mine, other):
        write_code(path, b"code")
    whole = mine.read_bytes()
    for data, path in ((whole[:-1], mine), (whole, other)):  # the one is cut off, the other has another's name
        path.write_bytes(data)
        store_code(stored, path)

    assert run("fetch-checkpoint", "--compiled", stored.uri(""), elsewhere).exit_code == 0
    assert code_of(elsewhere) == {}
    assert [getattr(record, "action", None) for record in caplog.records].count("compiled_code_unreadable") == 2

    mine.write_bytes(whole)
    store_code(stored, mine)
    (elsewhere / "compiled").mkdir()
    shutil.copy(other, elsewhere / "compiled" / mine.name)
    (elsewhere / "compiled" / mine.name).write_bytes(whole[:-1])
    assert run("fetch-checkpoint", "--compiled", stored.uri(""), elsewhere).exit_code == 0
    assert code_of(elsewhere) == {mine.name: b"code"}
