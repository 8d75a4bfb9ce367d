"""Named adapters, as users add, name and remove them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet import AdapterInvalid, AdapterNotFound, FleetSettings, ForeignURI, InvalidJob, LicenceRefused
from omnifleet.adapters import Adapters
from omnifleet.batch import generate
from omnifleet.cli import app
from omnifleet.testing import FakeAsyncClient, FakeClient
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.schema.adapter import JobAdapter
from support.data.adapter_folders import weights, write_folder
from typer.testing import CliRunner, Result

LICENCE = "CC BY-NC 4.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "adapter")


@pytest.fixture
def omni() -> FakeClient:
    return FakeClient()


@pytest.fixture
def with_rain(omni: FakeClient, folder: Path) -> FakeClient:
    omni.adapters.add("rain", folder, licence=LICENCE)
    return omni


def adapter_of(omni: FakeClient) -> JobAdapter | None:
    job: Any = omni.jobs[-1]
    found: JobAdapter | None = job.adapter
    return found


def stored(omni: FakeClient) -> set[str]:
    storage = omni.fleet.storage
    return {storage.key(found.uri) for found in storage.list("adapters/")}


def run(omni: FakeClient, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, obj=omni)


class TestKeeping:
    def test_an_adapter_is_kept_with_what_it_is_and_who_added_it_when(self, omni: FakeClient, folder: Path) -> None:
        added = omni.adapters.add("rain", folder, licence=LICENCE, commercial_use=True, added_by="eve")

        assert omni.adapters.get("rain") == added
        assert (added.name, added.base, added.revision, added.rank) == ("rain", "audio-omni", "published", 4)
        assert (added.licence, added.commercial_use, added.added_by) == (LICENCE, True, "eve")
        assert added.weights.sha256 == hashlib.sha256(weights(4)).hexdigest()
        assert datetime.now(UTC) - added.added_at < timedelta(minutes=5)

    def test_its_files_are_below_the_hash_of_a_manifest_that_names_theirs(self, with_rain: FakeClient) -> None:
        sha256, storage = with_rain.adapters.get("rain").sha256, with_rain.fleet.storage

        manifest = storage.get(storage.uri(f"adapters/{sha256}/manifest.json"), max_bytes=10_000)

        assert hashlib.sha256(manifest).hexdigest() == sha256
        for field, file in {"config": "adapter_config.json", "weights": "adapter_model.safetensors"}.items():
            data = storage.get(storage.uri(f"adapters/{sha256}/{file}"), max_bytes=10_000)
            assert json.loads(manifest)[field] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def test_the_same_once_more_changes_nothing(self, with_rain: FakeClient, folder: Path) -> None:
        before = with_rain.adapters.get("rain")

        assert with_rain.adapters.add("rain", folder, licence=LICENCE) == before == with_rain.adapters.get("rain")

    def test_the_same_in_another_storage_has_the_same_hash(self, with_rain: FakeClient, folder: Path) -> None:
        elsewhere = Adapters(FleetSettings(), MemoryStorage()).add("rain", folder, licence=LICENCE, added_by="bob")

        assert elsewhere.sha256 == with_rain.adapters.get("rain").sha256

    @pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 8}, {"revision": "2"}, {"lora_alpha": 9}])
    def test_a_name_is_not_taken_over(self, with_rain: FakeClient, tmp_path: Path, other: dict[str, Any]) -> None:
        with pytest.raises(InvalidJob, match="there is another adapter 'rain'"):
            with_rain.adapters.add("rain", write_folder(tmp_path / "other", **other), licence=LICENCE)

    def test_another_licence_is_another_adapter(self, with_rain: FakeClient, folder: Path) -> None:
        with pytest.raises(InvalidJob, match="there is another adapter 'rain'"):
            with_rain.adapters.add("rain", folder, licence="MIT")

    def test_all_are_listed_by_their_names(self, with_rain: FakeClient, folder: Path) -> None:
        with_rain.adapters.add("dogs", folder, licence=LICENCE)

        assert [one.name for one in FakeClient(fleet=with_rain.fleet).adapters.list()] == ["dogs", "rain"]

    def test_asyncio_has_the_same(self, with_rain: FakeClient, folder: Path) -> None:
        async def use() -> list[str]:
            async with FakeAsyncClient(fleet=with_rain.fleet) as omni:
                await omni.adapters.add("dogs", folder, licence=LICENCE)
                named = [one.name for one in await omni.adapters.list()]
                await omni.adapters.remove("dogs")
                return [*named, (await omni.adapters.get("rain")).name]

        assert asyncio.run(use()) == ["dogs", "rain", "rain"]


class TestRemoving:
    def test_with_its_last_name_its_files_go(self, with_rain: FakeClient, folder: Path, tmp_path: Path) -> None:
        with_rain.adapters.add("same", folder, licence=LICENCE)
        with_rain.adapters.add("other", write_folder(tmp_path / "other", seed=1), licence=LICENCE)
        kept = with_rain.adapters.get("other").sha256

        with_rain.adapters.remove("rain")
        assert len(stored(with_rain)) == 2 + 2 * 3
        with_rain.adapters.remove("same")

        assert {key.split("/")[1] for key in stored(with_rain)} == {"names", kept}
        for name in ("rain", "same"):
            with pytest.raises(AdapterNotFound, match=f"there is no adapter {name!r}"):
                with_rain.adapters.get(name)

    def test_what_is_not_there_is_not_removed(self, omni: FakeClient) -> None:
        with pytest.raises(AdapterNotFound, match=r"adapters\.list has all"):
            omni.adapters.remove("rain")


class TestRefused:
    @pytest.mark.parametrize("name", ["", "Rain", "../rain", "a/b", "-a", "a" * 65, "rain@sha256"])
    def test_a_name_that_will_not_do(self, omni: FakeClient, folder: Path, name: str) -> None:
        with pytest.raises(InvalidJob, match="is no name of an adapter"):
            omni.adapters.add(name, folder, licence=LICENCE)
        assert stored(omni) == set()

    def test_no_licence(self, omni: FakeClient, folder: Path) -> None:
        with pytest.raises(InvalidJob, match="licence"):
            omni.adapters.add("rain", folder, licence=" ")

    @pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
    def test_a_folder_that_lacks_a_file(self, omni: FakeClient, folder: Path, file: str) -> None:
        (folder / file).rename(folder / "adapter_model.bin")

        with pytest.raises(AdapterInvalid, match=f"{file} cannot be read"):
            omni.adapters.add("rain", folder, licence=LICENCE)

    @pytest.mark.parametrize("changes", [{"revision": None}, {"base_model_name_or_path": ""}, {"peft_type": "IA3"}])
    def test_one_that_does_not_say_what_it_was_trained_on(
        self, omni: FakeClient, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        with pytest.raises(AdapterInvalid, match="which says the checkpoint and revision"):
            omni.adapters.add("rain", write_folder(tmp_path / "adapter", **changes), licence=LICENCE)

    @given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda cut: weights(4)[: len(cut)])))
    def test_what_is_no_safetensors(self, tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
        folder = write_folder(tmp_path_factory.mktemp("adapter"))
        (folder / "adapter_model.safetensors").write_bytes(data)

        with pytest.raises(AdapterInvalid, match="holds no LoRA in safetensors"):
            Adapters(FleetSettings(), MemoryStorage()).add("rain", folder, licence=LICENCE)


class TestNaming:
    @pytest.mark.parametrize("form", ["{name}", "{name}@sha256:{hash}", "{uri}{name}", "{uri}{name}@sha256:{hash}"])
    def test_a_job_names_it_by_its_hash(self, with_rain: FakeClient, form: str) -> None:
        sha256, uri = with_rain.adapters.get("rain").sha256, with_rain.fleet.storage.uri("adapters/")

        job = with_rain.generate("t2a", "rain", adapter=form.format(name="rain", hash=sha256, uri=uri))

        assert adapter_of(with_rain) == JobAdapter(name="rain", sha256=sha256, scale=1.0)
        assert with_rain.jobs[-1].schema_version == 9
        used = job.result().adapter
        assert used is not None and (used.name, used.sha256, used.licence) == ("rain", sha256, LICENCE)

    def test_edits_and_asyncio_and_batches_do_so_too(self, with_rain: FakeClient) -> None:
        async def use() -> None:
            async with FakeAsyncClient(fleet=with_rain.fleet) as omni:
                await omni.generate("tts", "Hello", adapter="rain", adapter_scale=-0.5)

        with_rain.edit("add", b"sound", desc="rain", adapter="rain", adapter_scale=0.25)
        asyncio.run(use())
        lines = [
            generate("t2a", "rain", adapter="rain"),
            {"task": "generate.t2m", "text": "a waltz", "adapter": "rain"},
        ]
        assert all(outcome.error is None for outcome in with_rain.batch(lines))

        named = [job.adapter for job in with_rain.jobs]  # type: ignore[union-attr]
        assert [one and one.scale for one in named] == [0.25, -0.5, 1.0, 1.0]

    def test_without_one_a_job_is_as_it_was(self, with_rain: FakeClient) -> None:
        result = with_rain.generate("t2a", "rain").result()

        assert "adapter" not in with_rain.jobs[-1].model_dump()
        assert with_rain.jobs[-1].schema_version == 1
        assert "adapter" not in result.record.model_dump()

    @pytest.mark.parametrize(
        "reference", ["", "Rain", "rain@sha256:1", "rain@md5:1", "adapters/rain", f"@sha256:{'0' * 64}", 7, b"rain"]
    )
    def test_what_names_none(self, with_rain: FakeClient, reference: Any) -> None:
        with pytest.raises(InvalidJob, match="names no adapter") as refused:
            with_rain.generate("t2a", "rain", adapter=reference)
        assert refused.value.field == "adapter"

    @pytest.mark.parametrize("scale", [4.5, -5, float("nan"), "strong", [1]])
    def test_a_scale_that_will_not_do(self, with_rain: FakeClient, scale: Any) -> None:
        with pytest.raises(InvalidJob, match="Give a number from -4 to 4") as refused:
            with_rain.generate("t2a", "rain", adapter="rain", adapter_scale=scale)
        assert refused.value.field == "adapter_scale"

    def test_a_scale_without_an_adapter(self, omni: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="there is no adapter to apply so strongly"):
            omni.generate("t2a", "rain", adapter_scale=1.0)

    @pytest.mark.parametrize("reference", ["dogs", f"rain@sha256:{'0' * 64}"])
    def test_one_that_is_not_there(self, with_rain: FakeClient, reference: str) -> None:
        with pytest.raises(AdapterNotFound) as missing:
            with_rain.generate("t2a", "rain", adapter=reference)
        assert missing.value.field == "adapter"
        assert with_rain.jobs == []

    def test_one_of_another_storage(self, with_rain: FakeClient) -> None:
        with pytest.raises(ForeignURI):
            with_rain.generate("t2a", "rain", adapter="s3://elsewhere/adapters/rain")

    def test_understanding_takes_none(self, with_rain: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="understand takes no adapter"):
            with_rain.understand("caption", b"sound", adapter="rain")  # type: ignore[call-arg]

    @pytest.mark.parametrize("form", ["rain", "rain@sha256:{hash}"])
    def test_its_licence_counts_besides_the_model_s(self, with_rain: FakeClient, form: str) -> None:
        reference = form.format(hash=with_rain.adapters.get("rain").sha256)

        with pytest.raises(
            LicenceRefused, match=f"the adapter rain is under {LICENCE}, which allows no commercial use"
        ):
            with_rain.generate("t2a", "rain", adapter=reference, commercial=True)

    @pytest.mark.parametrize("other", [{"adapter": "dogs"}, {"adapter_scale": 0.5}, {"adapter": None}])
    def test_another_adapter_or_scale_is_another_request(
        self, with_rain: FakeClient, tmp_path: Path, other: dict[str, Any]
    ) -> None:
        with_rain.adapters.add("dogs", write_folder(tmp_path / "dogs", seed=1), licence=LICENCE)
        asked: dict[str, Any] = {"adapter": "rain", "idempotency_key": "auto"}

        first, again = (with_rain.generate("t2a", "rain", **asked) for _ in range(2))
        different = with_rain.generate("t2a", "rain", **(asked | other))

        assert first.id == again.id != different.id


class TestCommandLine:
    def test_it_is_added_named_shown_listed_and_removed(self, omni: FakeClient, folder: Path) -> None:
        added = run(omni, "adapters", "add", "rain", str(folder), "--licence", LICENCE, "--json")
        sha256 = json.loads(added.stdout)["sha256"]

        made = run(omni, "generate", "t2a", "rain", "--adapter", "rain", "--adapter-scale", "0.8", "--no-wait")
        edited = run(omni, "edit", "add", str(folder / "adapter_config.json"), "--desc", "x", "--adapter", "rain")

        assert (made.exit_code, edited.exit_code) == (0, 0), edited.output
        assert [job.adapter.scale for job in omni.jobs] == [0.8, 1.0]  # type: ignore[union-attr]
        assert f"rain@sha256:{sha256}" in run(omni, "adapters", "list").stdout
        assert f"licence:        {LICENCE}" in run(omni, "adapters", "show", "rain").stdout
        assert run(omni, "adapters", "remove", "rain").stdout == "rain is removed\n"
        assert run(omni, "adapters", "show", "rain").exit_code == 2
