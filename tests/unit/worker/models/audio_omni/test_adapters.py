"""Adapters in a batch: each row is as it is alone, and alone it is as peft has it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omnifleet_shared.errors import AdapterInvalid
from omnifleet_worker.models.audio_omni.adapters.low_rank import LAYERS, AdapterBatch, AppliedAdapter
from omnifleet_worker.models.audio_omni.adapters.reader import AdapterReader
from omnifleet_worker.models.audio_omni.float8 import LAYERS as STEP_LAYERS
from omnifleet_worker.models.audio_omni.float8 import quantize
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer, Guidance
from peft import LoraConfig, PeftModel
from safetensors.torch import load, save
from torch import Tensor

NAME, REVISION = "a model", "1"
CPU = torch.device("cpu")
TOLERANCE = 1e-5
ADAPTERS: dict[str, dict[str, Any]] = {
    "all layers": {"r": 16, "target_modules": ["to_qkv", "to_q", "to_kv", "to_out", "net.0.proj", "net.2"]},
    "attention": {"r": 5, "target_modules": ["to_qkv", "to_kv"], "lora_alpha": 20},
    "feed-forward": {"r": 3, "target_modules": ["net.0.proj", "net.2"], "use_rslora": True},
    "one block": {"r": 8, "target_modules": r"transformer_blocks\.1\.attn2\.to_.*", "rank_pattern": {"to_q": 2}},
}
SCALES = {"all layers": 1.0, "attention": 0.5, "feed-forward": 2.0, "one block": -1.0}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def make_transformer() -> AudioOmniTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AudioOmniTransformer(width=128, depth=2, heads=2).eval()


@pytest.fixture(scope="module")
def transformer() -> AudioOmniTransformer:
    return make_transformer()


def reader_of(transformer: AudioOmniTransformer, **limits: int) -> AdapterReader:
    return AdapterReader(transformer, NAME, REVISION, **({"max_rank": 16, "max_bytes": 2**24} | limits))


def peft_model(seed: int, **config: Any) -> PeftModel:
    """A transformer with an adapter that changes what it gives by about as much as it is."""
    about: dict[str, Any] = {"lora_alpha": 8} | config
    said = LoraConfig(base_model_name_or_path=NAME, revision=REVISION, **about)
    with torch.inference_mode(mode=False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PeftModel(make_transformer(), said)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def peft_models() -> dict[str, PeftModel]:
    return {name: peft_model(seed, **config) for seed, (name, config) in enumerate(ADAPTERS.items(), start=1)}


Files = tuple[bytes, bytes]


def files_of(model: PeftModel, folder: Path) -> Files:
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return (folder / "adapter_config.json").read_bytes(), (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def files(peft_models: Mapping[str, PeftModel], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    return {name: files_of(model, tmp_path_factory.mktemp("adapter")) for name, model in peft_models.items()}


@pytest.fixture(scope="module")
def adapters(transformer: AudioOmniTransformer, files: Mapping[str, Files]) -> dict[str, AppliedAdapter]:
    reader = reader_of(transformer)
    return {
        name: AppliedAdapter(sha256=name, scale=SCALES[name], weights=reader.read(*content))
        for name, content in files.items()
    }


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def velocities(
    transformer: AudioOmniTransformer,
    rows: Sequence[int],
    adapters: Sequence[AppliedAdapter | None],
    scales: Sequence[float] = (7.0, 1.0, 3.0, 2.0, 5.0, 7.0),
) -> Tensor:
    """Of requests that differ in everything, as one batch."""
    contexts = [transformer.encode_context(normal(row, 200 + row, 768), adapters[row]) for row in rows]
    latents, embeds = normal(1, 6, 64, 236), [transformer.encode_global(normal(row + 9, 364, 768)) for row in rows]
    return transformer(
        latents[list(rows)],
        torch.linspace(0.9, 0.1, 6)[list(rows)],
        transformer.collate_context(contexts),
        torch.stack(embeds),
        Guidance.of([scales[row] for row in rows], CPU),
        AdapterBatch.of([adapters[row] for row in rows]),
    )


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


class TestInOneBatch:
    def test_each_row_is_as_it_is_alone(
        self, transformer: AudioOmniTransformer, adapters: Mapping[str, AppliedAdapter]
    ) -> None:
        """Four adapters of different ranks, scales and layers, one of them twice, and none."""
        named = [*adapters.values()]
        rows = [named[0], None, named[1], named[2], named[3], AppliedAdapter("all layers", 0.3, named[0].weights)]

        together = velocities(transformer, range(6), rows)

        for row in range(6):
            assert difference(together[[row]], velocities(transformer, [row], rows)) < TOLERANCE

    def test_a_row_without_one_is_what_it_is_where_nobody_has_one(
        self, transformer: AudioOmniTransformer, adapters: Mapping[str, AppliedAdapter]
    ) -> None:
        rows = [adapters["all layers"], None, None, adapters["attention"], None, None]

        together, plain = velocities(transformer, range(6), rows), velocities(transformer, range(6), [None] * 6)

        assert difference(together[[1, 2, 4, 5]], plain[[1, 2, 4, 5]]) < TOLERANCE
        assert difference(together[0], plain[0]) > 0.1
        assert difference(together[3], plain[3]) > 0.01

    def test_an_adapter_that_only_changes_what_it_reads_of_the_context_is_heard(
        self, transformer: AudioOmniTransformer, tmp_path: Path
    ) -> None:
        content = files_of(peft_model(7, r=4, target_modules=["to_kv"]), tmp_path)
        adapter = AppliedAdapter(sha256="kv", scale=1.0, weights=reader_of(transformer).read(*content))

        changed, plain = (velocities(transformer, [0, 1], rows) for rows in ([adapter, None], [None, None]))

        assert difference(changed[0], plain[0]) > 0.01
        assert difference(changed[1], plain[1]) < TOLERANCE


class TestAlone:
    @pytest.mark.parametrize("name", ADAPTERS)
    def test_an_adapter_gives_what_peft_gives(
        self,
        name: str,
        transformer: AudioOmniTransformer,
        adapters: Mapping[str, AppliedAdapter],
        files: Mapping[str, Files],
        peft_models: Mapping[str, PeftModel],
    ) -> None:
        adapter = AppliedAdapter(sha256=name, scale=1.0, weights=adapters[name].weights)
        inside: Any = peft_models[name].get_base_model()

        served = velocities(transformer, [0], [adapter])

        assert difference(served, velocities(inside, [0], [None])) < TOLERANCE
        assert difference(served, velocities(transformer, [0], [None])) > 0.01

    def test_an_adapter_gives_what_it_gives_merged_into_the_weights(
        self, transformer: AudioOmniTransformer, adapters: Mapping[str, AppliedAdapter]
    ) -> None:
        model: Any = peft_model(1, **ADAPTERS["all layers"])
        merged = model.merge_and_unload()

        assert difference(
            velocities(transformer, [2], [None, None, adapters["all layers"]]), velocities(merged, [2], [None] * 3)
        ) < TOLERANCE  # fmt: skip

    def test_at_scale_zero_it_gives_what_the_model_gives(
        self, transformer: AudioOmniTransformer, adapters: Mapping[str, AppliedAdapter]
    ) -> None:
        silent = AppliedAdapter(sha256="none", scale=0.0, weights=adapters["all layers"].weights)

        assert difference(velocities(transformer, [0], [silent]), velocities(transformer, [0], [None])) < TOLERANCE

    def test_beside_float8_layers_it_is_applied_as_well(self, files: Mapping[str, Files]) -> None:
        quantized = make_transformer()
        quantize(quantized)
        adapter = AppliedAdapter("all layers", 4.0, reader_of(quantized).read(*files["all layers"]))

        exact = velocities(make_transformer(), [0], [adapter])
        found, without = (difference(velocities(quantized, [0], [one]), exact) for one in (adapter, None))

        assert found < 0.5 * without


def changed_config(files: Files, **changes: Any) -> Files:
    return json.dumps(json.loads(files[0]) | changes).encode(), files[1]


def with_renamed(files: Files, names: Mapping[str, str]) -> Files:
    return files[0], save({names.get(name, name): tensor for name, tensor in load(files[1]).items()})


def with_replaced(files: Files, key: str, tensor: Tensor) -> Files:
    return files[0], save(load(files[1]) | {key: tensor})


KEY = "base_model.model.transformer_blocks.0.attn1.to_qkv.lora_A.weight"


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"revision": "2"}, "trained on a model 2, and the worker runs a model 1"),
            ({"base_model_name_or_path": "another"}, "trained on another 1"),
            ({"use_dora": True}, "use_dora is not served"),
            ({"bias": "all"}, "bias all is not served"),
            ({"peft_type": "IA3"}, "peft_type IA3 is not served"),
            ({"lora_alpha": None}, "no lora_alpha"),
        ],
    )
    def test_what_the_configuration_says(
        self, changes: dict[str, Any], problem: str, transformer: AudioOmniTransformer, files: Mapping[str, Files]
    ) -> None:
        with pytest.raises(AdapterInvalid, match=problem):
            reader_of(transformer).read(*changed_config(files["attention"], **changes))

    @pytest.mark.parametrize("config", [b"", b"[]", b"\xff", b"[" * 100_000])
    def test_what_is_no_configuration(
        self, config: bytes, transformer: AudioOmniTransformer, files: Mapping[str, Files]
    ) -> None:
        with pytest.raises(AdapterInvalid, match="cannot be read"):
            reader_of(transformer).read(config, files["attention"][1])

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            (KEY.replace("blocks.0", "blocks.2"), r"transformer_blocks\.2\.attn1\.to_qkv.*blocks 0 to 1"),
            (KEY.replace("attn1.to_qkv", "attn1.to_all"), r"adapts transformer_blocks\.0\.attn1\.to_all"),
            ("base_model.model.proj_in.lora_A.weight", "adapts proj_in"),
            (KEY.replace("lora_A.weight", "lora_magnitude_vector"), "no part of a LoRA"),
            ("hello", "holds hello"),
        ],
    )
    def test_parts_that_there_is_no_layer_for(
        self, key: str, problem: str, transformer: AudioOmniTransformer, files: Mapping[str, Files]
    ) -> None:
        renamed = {KEY: key, KEY.replace("lora_A", "lora_B"): key.replace("lora_A", "lora_B")}

        with pytest.raises(AdapterInvalid, match=problem):
            reader_of(transformer).read(*with_renamed(files["attention"], renamed))

    @pytest.mark.parametrize(
        ("tensor", "problem"),
        [
            (torch.zeros(5, 127), r"parts \[5, 127\] and \[384, 5\] beside 384 x 128"),
            (torch.zeros(4, 128), r"parts \[4, 128\] and \[384, 5\]"),
            (torch.zeros(0, 128), r"parts \[0, 128\]"),
            (torch.zeros(5), r"parts \[5\]"),
            (torch.zeros(5, 128, dtype=torch.int64), "parts of torch.int64"),
            (torch.full((5, 128), float("nan")), "no numbers"),
        ],
    )
    def test_parts_of_another_form(
        self, tensor: Tensor, problem: str, transformer: AudioOmniTransformer, files: Mapping[str, Files]
    ) -> None:
        with pytest.raises(AdapterInvalid, match=problem):
            reader_of(transformer).read(*with_replaced(files["attention"], KEY, tensor))

    def test_one_matrix_without_the_other(self, transformer: AudioOmniTransformer, files: Mapping[str, Files]) -> None:
        tensors = load(files["attention"][1])
        del tensors[KEY]

        with pytest.raises(AdapterInvalid, match="one matrix without the other"):
            reader_of(transformer).read(files["attention"][0], save(tensors))

    def test_nothing_at_all(self, transformer: AudioOmniTransformer, files: Mapping[str, Files]) -> None:
        with pytest.raises(AdapterInvalid, match="holds nothing"):
            reader_of(transformer).read(files["attention"][0], save({}))

    @pytest.mark.parametrize("weights", [b"", b"\x80\x04pickle", b"\xff" * 100])
    def test_what_is_no_safetensors(
        self, weights: bytes, transformer: AudioOmniTransformer, files: Mapping[str, Files]
    ) -> None:
        with pytest.raises(AdapterInvalid, match="Give a file in safetensors"):
            reader_of(transformer).read(files["attention"][0], weights)

    @pytest.mark.parametrize(
        ("limits", "problem"), [({"max_rank": 4}, "rank 5, and 4 is the most"), ({"max_bytes": 1000}, "has 1,000 for")]
    )
    def test_what_is_too_large(
        self, limits: dict[str, int], problem: str, transformer: AudioOmniTransformer, files: Mapping[str, Files]
    ) -> None:
        with pytest.raises(AdapterInvalid, match=problem):
            reader_of(transformer, **limits).read(*files["attention"])


def test_every_layer_that_a_step_runs_can_be_adapted(transformer: AudioOmniTransformer) -> None:
    linear = {
        name.partition(".")[2].partition(".")[2]
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("transformer_blocks.")
    }

    assert linear == set(LAYERS)
    assert set(STEP_LAYERS) < set(LAYERS)
