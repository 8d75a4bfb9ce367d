"""The arithmetic of a GPU's memory, for the tiny checkpoint and for one of the published size."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting
from omnifleet_worker.checkpoint import memory_plan
from omnifleet_worker.checkpoint.memory_plan import MOST_DECODED, MemoryPlan, plan_memory
from omnifleet_worker.checkpoint.published.component_files import Component
from omnifleet_worker.checkpoint.published.state_dict import build_components, published_thinker_config
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.engine.warm_up import _longest_clip
from omnifleet_worker.model_loader import load_pipeline, plan_checkpoint
from omnifleet_worker.models import folder as checkpoint_folder
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS, AudioOmniPipeline
from omnifleet_worker.models.audio_omni.synchformer import Synchformer
from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from omnifleet_worker.settings import WorkerSettings
from safetensors.torch import load_file
from support.data.published_folders import full_size_config

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations and headers of the published size; where the weights would be are holes in the files."""
    models = build_components(full_size_config(), published_thinker_config())
    models |= {"synchformer": Synchformer().to("meta")}
    root = tmp_path_factory.mktemp("checkpoints") / "full"
    for name, model in models.items():
        write_holes(Component(name, model, dict, torch.bfloat16), root / name)
    (root / "processor").mkdir()
    (root / "processor/processor_config.json").write_text("{}")
    checkpoint_folder.write_index(root, AudioOmniPipeline.__name__, COMPONENTS)
    checkpoint_folder.write_data(root, prompts={}, vocab=[" "], card={})
    return root


def write_holes(component: Component, folder: Path) -> None:
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    header, end = {}, 0
    for key, tensor in component.tensors.items():
        place = [end, end := end + tensor.nbytes]
        header[key] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    save = component.model.config.save_pretrained if component.name == "thinker" else component.model.save_config
    save(folder)


def test_weights_are_counted_as_they_will_be_loaded(tiny: Path) -> None:
    stored = {path.parent.name: load_file(path) for path in tiny.glob("*/*.safetensors")}
    pipeline = AudioOmniPipeline.from_pretrained(tiny, dtype=torch.bfloat16)

    plan = plan_memory(tiny, CPU, torch.bfloat16)

    assert plan.weights.keys() == stored.keys()
    for name, size in plan.weights.items():
        assert size == sum(tensor.nbytes for tensor in getattr(pipeline, name).state_dict().values())


def test_full_precision_takes_more(tiny: Path) -> None:
    half, full = (plan_memory(tiny, CPU, dtype) for dtype in (torch.bfloat16, torch.float32))

    assert full.weights["thinker"] == 2 * half.weights["thinker"]
    assert full.weights["vae"] == half.weights["vae"]
    assert full.request == pytest.approx(2 * half.request, rel=0.05)  # its latents are float32 in both


def test_the_published_model_fits_a_gpu_of_24_gb(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.bfloat16, free=24 * 10**9)

    assert 15.5e9 < sum(plan.weights.values()) < 17.5e9
    assert 20e9 < plan.needed_bytes < 24e9
    assert plan.requests_at_once == 1
    plan.check()


def test_it_takes_more_requests_on_a_larger_one(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.bfloat16, free=80 * 10**9)

    at_once = plan.requests_at_once
    assert at_once is not None and at_once > 30
    fixed = plan.needed_bytes - plan.request
    assert fixed + at_once * plan.request <= 80e9 < fixed + (at_once + 1) * plan.request


def test_active_requests_share_what_is_left_beside_conditioning_and_decoding(full_size: Path) -> None:
    small, large = (plan_memory(full_size, GPU, torch.bfloat16, free=free * 10**9) for free in (24, 80))

    tight, roomy = (
        small.limits(clips=8, chats=16, cache_bytes=10**6),
        large.limits(clips=8, chats=16, cache_bytes=10**6),
    )

    assert (tight.clips, tight.chats, tight.decoded, tight.memory) == (8, 16, 1, 0)
    assert roomy.decoded == MOST_DECODED
    assert roomy.memory is not None and roomy.memory > 8 * large.request
    answers = large.cache_tokens(clips=8, chats=16) * large.chat_token
    used = sum(large.weights.values()) + large.graphs + answers + 2 * large.prefill
    used += roomy.decoded * large.decode + roomy.memory
    assert used + 10**6 + memory_plan.RESERVE_BYTES == 80 * 10**9


def test_a_clip_of_usual_length_costs_less_than_the_longest(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.bfloat16, free=0)

    assert 0 < plan.costs.clip_activations < plan.request / 2


def test_a_clip_with_an_adapter_costs_a_place_of_the_largest_rank_more(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.bfloat16, free=0, adapter_rank=16)

    # 36 blocks, 24 widths of 2,048 into and out of the layers of a step: 28 M parameters of rank 16.
    assert plan.costs.adapter_place == 2 * 16 * 36 * 24 * 2048
    assert plan.request == plan_memory(full_size, GPU, torch.bfloat16, free=0).request


def test_a_request_is_weighed_with_what_the_longest_holds(tiny: Path) -> None:
    plan = plan_memory(tiny, CPU, torch.float32)
    pipeline = load_pipeline(WorkerSettings(checkpoint=tiny, device="cpu"))
    runner = AudioOmniRunner(pipeline, costs=plan.costs)
    inputs = DiffusionInputs(prompt=Chat("", ""), steps=1, guidance=7.0, seed=0)
    longest = plan.costs.of_clip(_longest_clip(pipeline, seed=0))

    assert longest <= runner.weigh(Request(inputs=inputs)) <= 1.05 * longest
    text = json.loads((tiny / "thinker" / "config.json").read_text())["text_config"]
    embeddings = torch.zeros(text["max_position_embeddings"], text["hidden_size"])
    question = ChatInputs(chat=Chat("", ""), max_new_tokens=1, temperature=0, seed=0)
    assert embeddings.nbytes <= runner.weigh(Request(inputs=question)) <= 1.1 * embeddings.nbytes


def test_answers_have_memory_of_their_own_for_the_longest_and_for_many_of_usual_length(full_size: Path) -> None:
    small, large = (plan_memory(full_size, GPU, torch.bfloat16, free=free * 10**9) for free in (24, 80))

    assert large.chat_token == 2 * 36 * 2 * 128 * 2
    assert [large.cache_tokens(clips=8, chats=chats) for chats in (1, 16, 64)] == [32768, 32768, 64 * 2048]
    assert small.cache_tokens(clips=8, chats=64) == 32768
    assert plan_memory(full_size, CPU, torch.bfloat16).cache_tokens(clips=8, chats=64) == 64 * 2048


def test_the_context_of_a_request_is_the_longest(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.bfloat16, free=0)

    keys_and_values = 36 * 2 * 2048 * (2048 + 256) * 2
    assert 2 * keys_and_values < plan.request < 2.5 * keys_and_values


def test_captured_steps_hold_eight_short_contexts_and_the_activations_of_eight_clips(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.bfloat16, free=0)

    token = 36 * 2 * 2048 * 2
    beside_contexts = plan.graphs - 8 * 512 * token - 8 * plan.costs.clip_activations
    assert 0 < beside_contexts < 10**8


def test_a_gpu_that_is_too_small_is_refused_with_the_arithmetic(full_size: Path) -> None:
    plan = plan_memory(full_size, GPU, torch.float32, free=24 * 10**9)

    with pytest.raises(InvalidSetting) as caught:
        plan.check()
    text = str(caught.value)
    assert caught.value.field == "OMNIFLEET_DEVICE"
    for part in ("weights", "thinker 18.8 GB", "transformer 12.1 GB", "cuda:0 has 24.0 GB free", "OMNIFLEET_DTYPE"):
        assert part in text


def test_a_cpu_refuses_and_limits_nothing(full_size: Path) -> None:
    plan = plan_memory(full_size, CPU, torch.float32)

    plan.check()
    assert plan.requests_at_once is None
    assert plan.limits(8, 16, 10**9) == EngineLimits(clips=8, chats=16, decoded=MOST_DECODED)
    assert "the checkpoint needs" in plan.statement() and "float32" in plan.statement()


def test_one_byte_decides() -> None:
    sizes = {"weights": {"vae": 10}, "decode": 5, "prefill": 4, "request": 3}
    needed = 10 + 5 + 3 + memory_plan.RESERVE_BYTES

    def plan(free: int) -> MemoryPlan:
        return MemoryPlan(device="cuda:0", dtype="bfloat16", free=free, **sizes)

    plan(needed).check()
    assert plan(needed + 3).requests_at_once == 2
    with pytest.raises(InvalidSetting):
        plan(needed - 1).check()
    assert plan(0).requests_at_once == 0


def test_a_damaged_header_is_named(tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    root.mkdir()
    for path in tiny.iterdir():
        (root / path.name).symlink_to(path)
    (root / "vae").unlink()
    (root / "vae").mkdir()
    (root / "vae/config.json").write_text((tiny / "vae/config.json").read_text())
    (root / "vae/model.safetensors").write_bytes(b"\xff" * 100)

    with pytest.raises(CheckpointInvalid, match="no whole checkpoint"):
        plan_memory(root, CPU, torch.float32)


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"model_index\.json is missing"):
        plan_memory(tmp_path, CPU, torch.float32)


class TestLoad:
    def test_states_what_is_needed(self, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
        settings = WorkerSettings(checkpoint=tiny, device="cpu")

        with caplog.at_level(logging.INFO):
            load_pipeline(settings)

        record = next(record for record in caplog.records if getattr(record, "action", "") == "memory_planned")
        assert record.getMessage() == plan_checkpoint(settings).statement()

    def test_refuses_before_loading(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory_plan, "_free_bytes", lambda device: 10**6)
        monkeypatch.setattr(AudioOmniPipeline, "from_pretrained", pytest.fail)

        with pytest.raises(InvalidSetting, match="enough for 0 at once"):
            load_pipeline(WorkerSettings(checkpoint=tiny, device="cpu"))
