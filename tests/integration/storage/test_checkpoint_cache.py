"""A checkpoint brought from a real S3 API to a local folder, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting, StorageUnavailable
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import open_storage
from omnifleet_worker.checkpoint.cache import CheckpointCache
from omnifleet_worker.checkpoint.manifest import all_faults, record_files, write_manifest
from omnifleet_worker.cli import app
from rich.progress import Progress
from support import services
from typer.testing import CliRunner

WEIGHTS = "transformer/model.safetensors"
SIZES = {WEIGHTS: 3_000_000, "thinker/model-00001.safetensors": 1_000_000, "card.json": 500, "vocab.txt": 0}
SIZE = sum(SIZES.values())


class Meter(services.Proxy):
    """A proxy that counts the bytes it carries, and can break or hold each connection after so many."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.carried = 0
        self.breaks_after: int | None = None
        self.holds_after: int | None = None
        self.let_go = threading.Event()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:  # type: ignore[override]
        passed = 0
        with suppress(OSError):
            while data := source.recv(16384):
                if self.breaks_after is not None and passed > self.breaks_after:
                    break
                if self.holds_after is not None and passed > self.holds_after:
                    self.let_go.wait(300)
                sink.sendall(data)
                passed += len(data)
                self.carried += len(data)
        services._shut(source)
        services._shut(sink)


@pytest.fixture
def meter(s3_server: services.S3Server) -> Iterator[Meter]:
    proxy = Meter(int(s3_server.endpoint.rpartition(":")[2]))
    with proxy.running():
        yield proxy
        proxy.let_go.set()


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A converted checkpoint as far as files and manifest go."""
    root = tmp_path / "original"
    for path, size in SIZES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(os.urandom(size))
    write_manifest(root, record_files(root, [root / path for path in SIZES]))
    return root


@pytest.fixture
def source(original: Path, bucket: str, s3_server: services.S3Server) -> str:
    """The same in a bucket."""
    for path in original.rglob("*"):
        if path.is_file():
            s3_server.client().upload_file(str(path), bucket, f"omni/{path.relative_to(original)}")
    return f"s3://{bucket}/omni"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node/checkpoints/omni"


def cache(source: str, folder: Path, endpoint: str | None, timeout: float = 30) -> CheckpointCache:
    storage = open_storage(FleetSettings(storage=source, s3_endpoint=endpoint))
    return CheckpointCache(source=storage, folder=folder, progress=Progress(disable=True), timeout=timeout)


def command(source: str, folder: Path, endpoint: str) -> tuple[list[str], dict[str, str]]:
    arguments = [sys.executable, "-m", "omnifleet_worker", "fetch-checkpoint", source, str(folder)]
    return arguments, os.environ | {"OMNIFLEET_S3_ENDPOINT": endpoint}


def start(source: str, folder: Path, endpoint: str) -> subprocess.Popen[bytes]:
    arguments, env = command(source, folder, endpoint)
    return subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def parts(folder: Path) -> dict[str, Path]:
    """What lies half done beside the folder, by the name that it will have."""
    staging = folder.with_name(f".{folder.name}.fetching")
    return {path.relative_to(staging).as_posix().removesuffix(".part"): path for path in staging.rglob("*.part")}


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def assert_whole(folder: Path, original: Path) -> None:
    assert all_faults(folder) == {}
    for path in SIZES:
        assert (folder / path).read_bytes() == (original / path).read_bytes()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}


@pytest.fixture
def interrupted(source: str, folder: Path, meter: Meter) -> Path:
    """The folder after a fetch that was killed in the middle of its largest file."""
    meter.holds_after = 400_000
    child = start(source, folder, f"http://127.0.0.1:{meter.port}")
    services.wait_until(lambda: WEIGHTS in parts(folder) and parts(folder)[WEIGHTS].stat().st_size > 0)
    child.send_signal(signal.SIGKILL)
    child.wait()
    meter.let_go.set()
    meter.holds_after = None
    assert not folder.exists()
    return folder


class TestFetch:
    def test_every_file_arrives_as_it_was(
        self, source: str, folder: Path, s3_server: services.S3Server, original: Path
    ) -> None:
        manifest = cache(source, folder, s3_server.endpoint).fill()

        assert manifest.keys() == SIZES.keys()
        assert_whole(folder, original)

    def test_a_folder_is_a_source_too(self, original: Path, folder: Path) -> None:
        cache(f"file://{original}", folder, None).fill()

        assert_whole(folder, original)

    def test_what_is_there_is_not_fetched_again(self, source: str, folder: Path, meter: Meter) -> None:
        endpoint = f"http://127.0.0.1:{meter.port}"
        cache(source, folder, endpoint).fill()
        meter.carried = 0

        cache(source, folder, endpoint).fill()

        assert meter.carried < 20_000  # the manifest

    def test_the_command_does_the_same(
        self, source: str, folder: Path, s3_server: services.S3Server, original: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMNIFLEET_S3_ENDPOINT", s3_server.endpoint)

        result = CliRunner().invoke(app, ["fetch-checkpoint", source, str(folder)])

        assert result.exit_code == 0, result.stderr
        assert "4 files" in result.stderr
        assert_whole(folder, original)

    def test_the_command_loads_no_torch(self, source: str, folder: Path, s3_server: services.S3Server) -> None:
        code = (
            "import sys; from omnifleet_worker.cli import app\n"
            f"app(['fetch-checkpoint', {source!r}, {str(folder)!r}], standalone_mode=False)\n"
            "sys.exit('torch' in sys.modules)"
        )
        env = os.environ | {"OMNIFLEET_S3_ENDPOINT": s3_server.endpoint}

        assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


class TestInterruption:
    def test_connections_that_break_are_taken_up_where_they_broke(
        self, source: str, folder: Path, meter: Meter, original: Path
    ) -> None:
        meter.breaks_after = 700_000

        cache(source, folder, f"http://127.0.0.1:{meter.port}").fill()

        assert_whole(folder, original)
        assert meter.carried < 1.5 * SIZE

    def test_after_kill_9_only_the_rest_is_fetched(
        self, source: str, interrupted: Path, meter: Meter, original: Path
    ) -> None:
        there = sum(path.stat().st_size for path in parts(interrupted).values())
        meter.carried = 0

        cache(source, interrupted, f"http://127.0.0.1:{meter.port}").fill()

        assert_whole(interrupted, original)
        assert there > 200_000
        assert meter.carried < SIZE - there + 50_000

    def test_a_part_that_was_corrupted_is_fetched_anew(
        self, source: str, interrupted: Path, s3_server: services.S3Server, original: Path
    ) -> None:
        flip_a_byte(parts(interrupted)[WEIGHTS])

        cache(source, interrupted, s3_server.endpoint).fill()

        assert_whole(interrupted, original)

    def test_a_part_that_is_too_long_is_fetched_anew(
        self, source: str, interrupted: Path, s3_server: services.S3Server, original: Path
    ) -> None:
        parts(interrupted)[WEIGHTS].write_bytes(bytes(SIZES[WEIGHTS] + 1))

        cache(source, interrupted, s3_server.endpoint).fill()

        assert_whole(interrupted, original)

    def test_what_is_left_of_another_checkpoint_is_dropped(
        self, interrupted: Path, tmp_path: Path, s3_server: services.S3Server, bucket: str
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "card.json").write_text("{}")
        write_manifest(other, record_files(other, [other / "card.json"]))

        cache(f"file://{other}", interrupted, None).fill()

        assert sorted(path.name for path in interrupted.iterdir()) == ["card.json", "manifest.json"]

    def test_storage_that_stays_away_is_an_error_of_its_own(self, source: str, folder: Path, meter: Meter) -> None:
        meter.cut()

        with pytest.raises(StorageUnavailable):
            cache(source, folder, f"http://127.0.0.1:{meter.port}", timeout=0.5).fill()


class TestSeveralAtOnce:
    def test_two_processes_fetch_once(self, source: str, folder: Path, meter: Meter, original: Path) -> None:
        meter.holds_after = 400_000
        first = start(source, folder, f"http://127.0.0.1:{meter.port}")
        services.wait_until(lambda: bool(parts(folder)))
        second = start(source, folder, f"http://127.0.0.1:{meter.port}")
        meter.let_go.set()

        assert (first.wait(300), second.wait(300)) == (0, 0)
        assert_whole(folder, original)
        assert meter.carried < 1.2 * SIZE


class TestDamage:
    def test_a_file_that_was_cut_short_is_fetched_again_and_no_other(
        self, source: str, folder: Path, meter: Meter, original: Path
    ) -> None:
        endpoint = f"http://127.0.0.1:{meter.port}"
        cache(source, folder, endpoint).fill()
        (folder / "card.json").write_bytes(b"")
        meter.carried = 0

        cache(source, folder, endpoint).fill()

        assert_whole(folder, original)
        assert meter.carried < 50_000

    def test_a_flipped_byte_is_found_where_hashes_are_asked_for(
        self, source: str, folder: Path, s3_server: services.S3Server, original: Path
    ) -> None:
        cache(source, folder, s3_server.endpoint).fill()
        flip_a_byte(folder / WEIGHTS)

        cache(source, folder, s3_server.endpoint).fill(verify=True)

        assert_whole(folder, original)

    def test_an_object_that_is_not_what_its_manifest_says_is_refused(
        self, source: str, folder: Path, s3_server: services.S3Server, bucket: str
    ) -> None:
        s3_server.client().put_object(Bucket=bucket, Key=f"omni/{WEIGHTS}", Body=bytes(SIZES[WEIGHTS]))

        with pytest.raises(CheckpointInvalid, match="is not the file that its manifest says") as caught:
            cache(source, folder, s3_server.endpoint).fill()

        assert caught.value.field == WEIGHTS
        assert not folder.exists()


class TestRefusals:
    def test_a_folder_that_holds_something_else_is_left_alone(
        self, source: str, folder: Path, s3_server: services.S3Server
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("three years")

        with pytest.raises(InvalidSetting, match="holds something other"):
            cache(source, folder, s3_server.endpoint).fill()

        assert (folder / "thesis.txt").read_text() == "three years"

    def test_a_source_without_manifest_is_no_checkpoint(
        self, bucket: str, folder: Path, s3_server: services.S3Server
    ) -> None:
        with pytest.raises(CheckpointInvalid, match=r"there is no s3://.*manifest\.json"):
            cache(f"s3://{bucket}/nothing", folder, s3_server.endpoint).fill()

    @pytest.mark.parametrize(
        "path", ["../outside", "/etc/passwd", "a/../../b", "manifest.json", ".", "compiled/h100.bin"]
    )
    def test_no_path_leads_out_of_the_folder(self, tmp_path: Path, folder: Path, path: str) -> None:
        evil = tmp_path / "evil"
        evil.mkdir()
        (evil / "manifest.json").write_text(f'{{"{path}": {{"bytes": 0, "sha256": "{"0" * 64}"}}}}')

        with pytest.raises(CheckpointInvalid, match="is no path inside a checkpoint"):
            cache(f"file://{evil}", folder, None).fill()

    def test_too_little_room_is_found_before_anything_is_fetched(
        self, source: str, folder: Path, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nearly_full(path: Path) -> Any:
            return shutil._ntuple_diskusage(total=10**9, used=10**9 - 1000, free=1000)

        monkeypatch.setattr(shutil, "disk_usage", nearly_full)

        with pytest.raises(InvalidSetting, match=r"0\.0 GB free") as caught:
            cache(source, folder, s3_server.endpoint).fill()

        assert caught.value.field == "DIR"
        assert not parts(folder)

    def test_a_disk_that_takes_no_more_is_a_typed_error_and_the_next_fetch_goes_on(
        self, source: str, folder: Path, s3_server: services.S3Server, original: Path
    ) -> None:
        arguments, env = command(source, folder, s3_server.endpoint)
        limited = ["prlimit", "--fsize=2000000", *arguments]

        result = subprocess.run(limited, env=env, capture_output=True, text=True, check=False)

        assert result.returncode == 2
        assert "CheckpointInvalid" in result.stderr and "cannot be written" in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        cache(source, folder, s3_server.endpoint).fill()
        assert_whole(folder, original)
