"""Float8 by rows: how near it comes, that batch mates stay unheard, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import InvalidSetting
from omnifleet_worker.model_loader import load_pipeline
from omnifleet_worker.models.audio_omni.float8 import (
    IN_BFLOAT16,
    LAYERS,
    Float8Linear,
    check_device,
    quantize,
    quantize_rows,
)
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer, Guidance
from omnifleet_worker.settings import WorkerSettings
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def transformer() -> AudioOmniTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AudioOmniTransformer(width=128, depth=2, heads=2).eval().requires_grad_(False)


@torch.inference_mode()
def velocity(model: AudioOmniTransformer, rows: list[int]) -> Tensor:
    lengths, latents, tokens = [300, 256], normal(1, 2, 64, 236), normal(2, 2, 364, 768)
    context = model.collate_context([model.encode_context(normal(row, lengths[row], 768)) for row in rows])
    global_embeds = torch.stack([model.encode_global(tokens[row]) for row in rows])
    times, guidance = torch.tensor([0.9, 0.2])[rows], Guidance.of([7.0 - row for row in rows], CPU)
    return model(latents[rows], times, context, global_embeds, guidance)


@given(st.floats(-8, 20), st.floats(-8, 20))
def test_a_row_keeps_its_digits_whatever_the_size_of_its_neighbours(first: float, second: float) -> None:
    rows = normal(0, 2, 64) * torch.tensor([[10.0**first], [10.0**second]])

    rounded, scale = quantize_rows(rows)

    restored = rounded.float() * scale
    assert ((restored - rows).abs() <= rows.abs() / 16 + rows.abs().amax(1, keepdim=True) / 2**17).all()


def test_rows_of_zeros_stay_zeros() -> None:
    layer = Float8Linear(nn.Linear(32, 16, bias=False))

    assert not layer(torch.zeros(3, 32)).any()


def test_a_layer_is_as_near_as_three_bits_of_mantissa_allow() -> None:
    linear = nn.Linear(256, 128)
    hidden = normal(3, 2, 50, 256)

    with torch.no_grad():
        exact, found = linear(hidden), Float8Linear(linear)(hidden)

    assert found.shape == exact.shape and found.dtype == exact.dtype
    assert 0.001 < (found - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("bias", [True, False])
def test_a_gpu_s_product_takes_the_operands_as_they_are_laid_out(bias: bool) -> None:
    with FakeTensorMode():
        layer = Float8Linear(nn.Linear(64, 48, bias=bias, device=GPU, dtype=torch.bfloat16))
        found = layer(torch.empty(2, 5, 64, device=GPU, dtype=torch.bfloat16))

    assert (found.shape, found.dtype, found.device) == ((2, 5, 48), torch.bfloat16, GPU)


def test_the_chosen_layers_alone_are_put_into_float8() -> None:
    model = transformer()

    quantize(model, kept=["ff.net.2"])

    for block in model.transformer_blocks:
        kinds = {name: type(module) for name, module in block.named_modules()}
        assert kinds["ff.net.2"] is kinds["attn2.to_kv"] is nn.Linear
        assert all(kinds[name] is Float8Linear for name in LAYERS if name != "ff.net.2")


def test_most_work_is_in_float8_by_default() -> None:
    sizes = {name: transformer().transformer_blocks[0].get_submodule(name).weight.numel() for name in LAYERS}

    assert set(LAYERS) > IN_BFLOAT16
    assert sum(sizes[name] for name in LAYERS if name not in IN_BFLOAT16) > 0.7 * sum(sizes.values())


def test_a_velocity_in_float8_is_near_and_the_same_in_every_company() -> None:
    exact, model = velocity(transformer(), [0, 1]), transformer()
    quantize(model)

    together = velocity(model, [0, 1])

    assert 1e-4 < (together - exact).norm() / exact.norm() < 0.1
    for row in (0, 1):
        # What float32 rounds elsewhere in another company may tip a value over to its neighbour in float8.
        alone = velocity(model, [row])[0]
        assert (together[row] - alone).norm() / alone.norm() < 0.01


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "said"),
    [
        (CPU, torch.float32, None, "cpu is no GPU"),
        (GPU, torch.bfloat16, (8, 0), r"cuda:0 has compute capability 8.0, and float8 needs .* 8.9"),
        (GPU, torch.float32, (9, 0), "OMNIFLEET_DTYPE asks for float32"),
    ],
)
def test_it_is_refused_where_the_device_cannot(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, dtype: torch.dtype, capability: tuple[int, int], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    with pytest.raises(InvalidSetting, match=said) as caught:
        check_device(device, dtype)

    assert caught.value.field == "OMNIFLEET_PRECISION"


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0)])
def test_it_is_taken_from_ada_on(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    check_device(GPU, torch.bfloat16)


def test_a_worker_on_a_cpu_refuses_it_before_it_loads_anything(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="OMNIFLEET_PRECISION"):
        load_pipeline(WorkerSettings(checkpoint=tmp_path / "none", device="cpu", precision="fp8"))
