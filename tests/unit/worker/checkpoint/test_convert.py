"""The published files as a checkpoint: whole, exact, frugal, resumable, and with nothing of them run as code."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting
from omnifleet_shared.schema.model_card import AUDIO_OMNI, ModelCard
from omnifleet_worker.checkpoint import convert as conversion
from omnifleet_worker.checkpoint.convert import Conversion
from omnifleet_worker.checkpoint.manifest import Manifest, all_faults, read_manifest
from omnifleet_worker.checkpoint.published import component_files
from omnifleet_worker.checkpoint.published import synchformer as published_synchformer
from omnifleet_worker.checkpoint.published.code import read_prompts
from omnifleet_worker.checkpoint.published.component_files import SHARD_BYTES, Component
from omnifleet_worker.checkpoint.published.files import PublishedFiles
from omnifleet_worker.checkpoint.published.processor_files import find_processor, load_processor
from omnifleet_worker.checkpoint.published.state_dict import build_components, load_published, published_thinker_config
from omnifleet_worker.checkpoint.published.synchformer import load_published_synchformer
from omnifleet_worker.cli import app
from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS, AudioOmniPipeline
from omnifleet_worker.models.audio_omni.synchformer import Synchformer
from parity.weights import tiny_thinker_config
from rich.progress import Progress
from support.data.published_folders import (
    PROMPTS,
    VOCAB,
    full_size_config,
    hollow,
    shapes,
    small_synchformer_shapes,
    write_code,
    write_processor,
    write_weights,
)
from torch import Tensor, nn
from typer.testing import CliRunner

SHARD = 10_000_000
MODELS = [name for name in COMPONENTS if name != "processor"]


@pytest.fixture(scope="module", autouse=True)
def small_synchformer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published_synchformer, "Synchformer", partial(Synchformer, depth=1))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversion")


@pytest.fixture(scope="module")
def drawn(home: Path) -> PublishedFiles:
    """Published files with weights in them."""
    return find(write_weights(home / "drawn"), write_code(home / "code"), write_processor(home / "qwen"))


@pytest.fixture
def light(drawn: PublishedFiles, tmp_path: Path) -> Path:
    """Weights, clone and processor of a test's own, in which every tensor is zeros."""
    write_weights(tmp_path / "in/weights", hollow)
    write_code(tmp_path / "in/code")
    shutil.copytree(drawn.processor, tmp_path / "in/qwen")
    return tmp_path / "in"


@pytest.fixture(scope="module")
def converted(drawn: PublishedFiles, home: Path) -> Path:
    convert(drawn, home / "converted")
    return home / "converted"


@pytest.fixture(scope="module")
def published(drawn: PublishedFiles) -> dict[str, nn.Module]:
    """What the published files hold, by the loader that the parity tests hold to the published numbers."""
    models = load_published(drawn.state_dict, drawn.config, tiny_thinker_config())
    return models | {"synchformer": load_published_synchformer(drawn.synchformer)}


def find(weights: Path, code: Path, qwen: Path) -> PublishedFiles:
    return PublishedFiles.find(weights, code, qwen)


def find_in(folder: Path) -> PublishedFiles:
    return find(folder / "weights", folder / "code", folder / "qwen")


def convert(files: PublishedFiles, out: Path, **options: Any) -> Manifest:
    progress = Progress(disable=True)
    return Conversion(files=files, out=out, progress=progress, thinker_config=tiny_thinker_config(), **options).run()


def assert_same(found: Any, wanted: Any) -> None:
    found, wanted = found.state_dict(), wanted.state_dict()
    assert found.keys() == wanted.keys()
    for key in found:
        assert found[key].dtype == wanted[key].dtype and torch.equal(found[key], wanted[key]), key


class TestCheckpoint:
    def test_has_the_published_weights(self, converted: Path, published: dict[str, nn.Module]) -> None:
        pipeline = AudioOmniPipeline.from_pretrained(converted)

        for name in MODELS:
            assert_same(getattr(pipeline, name), published[name])

    def test_has_the_data_of_the_published_code(self, converted: Path, drawn: PublishedFiles) -> None:
        pipeline = AudioOmniPipeline.from_pretrained(converted)

        assert pipeline.vocab == VOCAB
        assert pipeline.prompts == read_prompts(drawn.prompts)
        card = ModelCard.model_validate(pipeline.card)
        assert (card.name, card.licence) == ("audio-omni", "CC BY-NC 4.0")
        assert card.parts == AUDIO_OMNI.parts
        assert card.languages == ("en", "zh", "ja", "fr", "de")
        assert len(card.revision) == 16

    def test_has_a_manifest_of_every_file(self, converted: Path) -> None:
        manifest = read_manifest(converted)

        files = {path.relative_to(converted).as_posix() for path in converted.rglob("*") if path.is_file()}
        assert manifest is not None and manifest.keys() == files - {"manifest.json"}
        assert all_faults(converted) == {}

    def test_may_be_stored_in_bfloat16(self, converted: Path, drawn: PublishedFiles, tmp_path: Path) -> None:
        convert(drawn, tmp_path / "half", dtype=torch.bfloat16)

        full, half = (
            AudioOmniPipeline.from_pretrained(folder, dtype=torch.bfloat16) for folder in (converted, tmp_path / "half")
        )
        for name in MODELS:
            assert_same(getattr(half, name), getattr(full, name))
        size = sum(path.stat().st_size for path in (tmp_path / "half/thinker").iterdir())
        assert size < 0.51 * sum(path.stat().st_size for path in (converted / "thinker").iterdir())

    def test_depends_on_the_inputs_and_the_dtype_alone(self, drawn: PublishedFiles, light: Path) -> None:
        progress = Progress(disable=True)
        revision = drawn.revision("None", progress)

        assert drawn.revision("None", progress) == revision
        assert drawn.revision("bf16", progress) != revision
        assert find_in(light).revision("None", progress) != revision


class TestMemory:
    def test_holds_one_shard_at_a_time(
        self, drawn: PublishedFiles, published: dict[str, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A name of its own, to tell this conversion's mappings of the file from those of the fixtures.
        (tmp_path / "streamed.ckpt").hardlink_to(drawn.state_dict)
        files = replace(drawn, state_dict=tmp_path / "streamed.ckpt")
        written: list[tuple[int, list[int]]] = []
        save_file = component_files.save_file

        def save(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
            written.append((sum(tensor.nbytes for tensor in tensors.values()), resident_bytes("streamed.ckpt")))
            save_file(tensors, path, **options)

        monkeypatch.setattr(component_files, "save_file", save)
        convert(files, tmp_path / "out", shard_bytes=SHARD)

        main = [(size, mapped) for size, mapped in written if mapped]
        largest = max(tensor.nbytes for model in published.values() for tensor in model.state_dict().values())
        assert len(main) > 15
        assert all(size <= max(SHARD, largest) for size, _ in written)
        assert all(len(mapped) == 1 for _, mapped in main), "what an earlier shard has read is still mapped"
        assert all(mapped[0] <= size + 2**21 for size, mapped in main)
        assert resident_bytes("streamed.ckpt") == []

    def test_shards_load_as_one(self, drawn: PublishedFiles, published: dict[str, nn.Module], tmp_path: Path) -> None:
        convert(drawn, tmp_path / "out", shard_bytes=SHARD)

        pipeline = AudioOmniPipeline.from_pretrained(tmp_path / "out")
        for name in ("thinker", "speech_encoder", "synchformer"):
            assert len(list((tmp_path / "out" / name).glob("*.safetensors"))) > 1
            assert_same(getattr(pipeline, name), published[name])

    def test_the_published_size_is_cut_into_small_shards(self) -> None:
        models = build_components(full_size_config(), published_thinker_config())
        components = [Component(name, model, dict, torch.bfloat16) for name, model in models.items()]
        sizes = {one.name: one.bytes for one in components}

        splits = [split_torch_state_dict_into_shards(one.tensors, max_shard_size=SHARD_BYTES) for one in components]

        assert 6.0e9 < sizes["transformer"] < 6.2e9 and 9.3e9 < sizes["thinker"] < 9.5e9
        assert sum(len(split.filename_to_tensors) for split in splits) > 15
        assert max(tensor.nbytes for one in components for tensor in one.tensors.values()) < SHARD_BYTES


class TestInterruption:
    def test_goes_on_where_it_stopped(
        self, drawn: PublishedFiles, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(conversion, "write_component", stop_at("speech_encoder", KeyboardInterrupt()))
            convert(drawn, out)
        assert_not_a_checkpoint(out)
        before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.safetensors")}

        convert(drawn, out)

        assert {path.parent.name for path in before} == {"transformer", "vae", "omni_projection"}
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        assert read_manifest(out) == read_manifest(converted)
        assert all_faults(out) == {}
        assert not (out / ".conversion").exists()

    def test_a_full_disk_leaves_nothing_that_looks_complete(
        self, drawn: PublishedFiles, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        with monkeypatch.context() as patch, pytest.raises(CheckpointInvalid, match="cannot be written") as caught:
            patch.setattr(component_files, "save_file", fill_disk_after(5))
            convert(drawn, out, shard_bytes=SHARD)
        assert "No space left" in str(caught.value) and "goes on" in str(caught.value)
        assert_not_a_checkpoint(out)

        convert(drawn, out)

        wanted, found = read_manifest(converted), read_manifest(out)
        assert wanted is not None and found is not None
        assert found["transformer/config.json"] == wanted["transformer/config.json"]
        assert_same(
            AudioOmniPipeline.from_pretrained(out).thinker, AudioOmniPipeline.from_pretrained(converted).thinker
        )

    def test_a_full_disk_at_the_very_end_leaves_none_either(
        self, light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(conversion, "write_manifest", fail)

        with pytest.raises(CheckpointInvalid, match="No space left"):
            convert(find_in(light), tmp_path / "out")
        assert_not_a_checkpoint(tmp_path / "out")

    def test_other_inputs_begin_anew(self, light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "out"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(conversion, "write_component", stop_at("omni_projection", KeyboardInterrupt()))
            convert(find_in(light), out)
        (light / "code/audio_omni/prompts.py").write_text(PROMPTS.replace("Edit it.", "Edit it well."))
        begun: list[str] = []
        monkeypatch.setattr(conversion, "write_component", stop_at("vae", KeyboardInterrupt(), begun))

        with pytest.raises(KeyboardInterrupt):
            convert(find_in(light), out)

        assert begun == ["transformer", "vae"]

    def test_what_is_complete_is_left_alone(
        self, drawn: PublishedFiles, converted: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conversion, "write_component", pytest.fail)

        assert convert(drawn, converted) == read_manifest(converted)

    def test_what_was_damaged_since_is_made_anew(self, light: Path, tmp_path: Path) -> None:
        whole = convert(find_in(light), tmp_path / "out")
        weights = next((tmp_path / "out/vae").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1])

        assert convert(find_in(light), tmp_path / "out") == whole
        assert all_faults(tmp_path / "out") == {}

    def test_another_checkpoint_is_left_alone(self, light: Path, converted: Path) -> None:
        with pytest.raises(InvalidSetting, match="holds another checkpoint"):
            convert(find_in(light), converted)
        assert all_faults(converted) == {}

    def test_too_small_a_disk_is_refused_before_writing(
        self, light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))

        with pytest.raises(InvalidSetting, match=r"has 0\.1 GB free, and 0\.\d GB are still to be written"):
            convert(find_in(light), tmp_path / "out")
        assert not list((tmp_path / "out").glob("*/*.safetensors"))

    def test_a_file_in_the_way_is_named(self, light: Path, tmp_path: Path) -> None:
        (tmp_path / "out").touch()

        with pytest.raises(CheckpointInvalid, match="cannot be written"):
            convert(find_in(light), tmp_path / "out")


class TestRefusal:
    @pytest.mark.parametrize("name", ["model.ckpt", "synchformer_state_dict.pth"])
    def test_code_in_a_pickle_is_not_run(self, light: Path, tmp_path: Path, name: str) -> None:
        class Malicious:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "was-run",))

        torch.save({"state_dict": {"weight": Malicious()}}, light / "weights" / name)

        with pytest.raises(CheckpointInvalid, match="would run code from the file") as caught:
            convert(find_in(light), tmp_path / "out")
        assert caught.value.field == name
        assert "weights_only" not in str(caught.value)
        assert not (tmp_path / "was-run").exists() and not (tmp_path / "out").exists()

    @pytest.mark.parametrize("content", [[torch.zeros(1)], {"weight": 1}, {}, torch.zeros(1)])
    def test_what_is_no_state_dict_is_named(self, light: Path, tmp_path: Path, content: object) -> None:
        torch.save(content, light / "weights/model.ckpt")

        with pytest.raises(CheckpointInvalid, match="something else than a state dict"):
            convert(find_in(light), tmp_path / "out")

    @pytest.mark.parametrize(
        "name",
        ["Audio-Omni.json", "model.ckpt", "synchformer_state_dict.pth", "prompts.py", "vocab.txt"],
    )
    def test_a_missing_file_is_named(self, light: Path, name: str) -> None:
        next(light.rglob(name) if name != "vocab.txt" else light.glob("code/**/vocab.txt")).unlink()

        with pytest.raises(CheckpointInvalid, match=rf"{re.escape(name)} not found"):
            find_in(light)

    def test_all_missing_weights_are_named_at_once(self, light: Path) -> None:
        shutil.rmtree(light / "weights")

        with pytest.raises(CheckpointInvalid, match=r"Audio-Omni\.json and .*model\.ckpt and .*synchformer"):
            find_in(light)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"model.model.surprise": [1]}, r"unknown tensor, model\.model\.surprise"),
            ({"model.model.transformer.project_in.weight": None}, r"lacks the tensor transformer\.proj_in\.weight"),
            ({"model.model.transformer.project_in.weight": [3, 3]}, r"\[3, 3\] instead of \[128, 64\]"),
        ],
    )
    def test_tensors_are_checked_before_anything_is_written(
        self, light: Path, tmp_path: Path, change: dict[str, list[int] | None], said: str
    ) -> None:
        found = {key: shape for key, shape in (shapes("tiny_state_dict_shapes.json") | change).items() if shape}
        torch.save({key: hollow(key, shape) for key, shape in found.items()}, light / "weights/model.ckpt")

        with pytest.raises(CheckpointInvalid, match=said):
            convert(find_in(light), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_video_encoder_with_other_tensors_is_refused(self, light: Path, tmp_path: Path) -> None:
        found = small_synchformer_shapes() | {"vfeat_extractor.surprise": [1]}
        video = {key: hollow(key, shape) for key, shape in found.items()}
        torch.save(video, light / "weights/synchformer_state_dict.pth")

        with pytest.raises(CheckpointInvalid, match=r"vfeat_extractor\.surprise"):
            convert(find_in(light), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("text", ["[]", '"model"', "null", "{", '{"model": []}'])
    def test_a_configuration_of_another_form_is_refused(self, light: Path, tmp_path: Path, text: str) -> None:
        files = find_in(light)
        files.config.write_text(text)

        with pytest.raises(CheckpointInvalid):
            load_published(files.state_dict, files.config, tiny_thinker_config())

    def test_a_configuration_that_names_no_thinker_is_refused(self, light: Path) -> None:
        (light / "weights/Audio-Omni.json").write_text("{}")

        with pytest.raises(CheckpointInvalid, match="does not name the thinker"):
            find_in(light)


class TestProcessor:
    def test_is_found_in_the_cache_of_hugging_face(
        self, drawn: PublishedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tmp_path / "models--Qwen--Qwen2.5-Omni-3B"
        (model / "refs").mkdir(parents=True)
        (model / "refs/main").write_text("abc")
        shutil.copytree(drawn.processor, model / "snapshots/abc")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

        assert find_processor("Qwen/Qwen2.5-Omni-3B") == model / "snapshots/abc"

    def test_is_asked_for_where_there_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

        for folder in (None, tmp_path):
            with pytest.raises(CheckpointInvalid, match=r"hf download Qwen/Qwen2\.5-Omni-3B"):
                find_processor("Qwen/Qwen2.5-Omni-3B", folder)

    def test_of_another_model_is_refused(self, drawn: PublishedFiles) -> None:
        with pytest.raises(CheckpointInvalid, match="marks audio by token 502, and the thinker reads it as 151646"):
            load_processor(drawn.processor, published_thinker_config())

    def test_that_is_incomplete_is_refused(self, drawn: PublishedFiles, tmp_path: Path) -> None:
        shutil.copy(drawn.processor / "tokenizer_config.json", tmp_path)

        with pytest.raises(CheckpointInvalid, match="no whole processor"):
            load_processor(tmp_path, tiny_thinker_config())


class TestCommand:
    def test_converts(self, light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(conversion, "published_thinker_config", tiny_thinker_config)
        inputs = ["--weights", light / "weights", "--code", light / "code", "--qwen", light / "qwen"]

        result = CliRunner().invoke(app, ["convert", *map(str, inputs), str(tmp_path / "out"), "--dtype", "bf16"])

        assert result.exit_code == 0, result.output
        said = " ".join(result.stderr.split())  # lines are broken to the terminal's width, wherever the folder is
        assert "holds the checkpoint" in said and "converting" in said
        pipeline = AudioOmniPipeline.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
        assert pipeline.transformer.dtype == torch.bfloat16
        assert CliRunner().invoke(app, ["verify", str(tmp_path / "out")]).exit_code == 0

    def test_names_what_is_missing(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["convert", "--weights", ".", "--code", ".", str(tmp_path / "out")])

        assert isinstance(result.exception, CheckpointInvalid)
        assert "model.ckpt" in str(result.exception)


def resident_bytes(name: str) -> list[int]:
    """Of each mapping of the file of that name in this process: how much of it lies in memory."""
    mappings = Path("/proc/self/smaps").read_text().split(name + "\n")[1:]
    return [int(mapping.split("Rss:")[1].split()[0]) * 1024 for mapping in mappings]


def stop_at(name: str, error: BaseException, begun: list[str] | None = None) -> Callable[..., None]:
    """`write_component`, until it comes to that component: of that it writes the folder and no more."""

    def write(component: Component, folder: Path, *arguments: Any) -> None:
        if begun is not None:
            begun.append(component.name)
        if component.name != name:
            return component_files.write_component(component, folder, *arguments)
        folder.mkdir()
        raise error

    return write


def fill_disk_after(files: int) -> Callable[..., None]:
    """`save_file` on a disk with room for so many."""
    places = iter(range(files))
    save_file = component_files.save_file

    def save(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
        if next(places, None) is None:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, **options)

    return save


def assert_not_a_checkpoint(folder: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"model_index\.json is missing"):
        AudioOmniPipeline.from_pretrained(folder)
