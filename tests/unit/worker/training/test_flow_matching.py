"""The loss and its gradients, beside a transformer and a loss that are written anew from docs/model.md."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer, Guidance
from omnifleet_worker.training.batches import Batch
from omnifleet_worker.training.flow_matching import FlowMatchingLoss, NoisedBatch, seeded
from omnifleet_worker.training.velocity_model import VelocityModel
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.nn import functional

HEADS, DEPTH, FRAMES = 2, 2, 20
RANK, ALPHA = 3, 6.0
Weights = Mapping[str, Tensor]


@pytest.fixture
def transformer() -> AudioOmniTransformer:
    with seeded(1):
        return AudioOmniTransformer(width=128, depth=DEPTH, heads=HEADS).train()


@pytest.fixture
def noised() -> NoisedBatch:
    """Three examples, one of which is unconditional."""
    with seeded(2):
        mask = torch.arange(9) < torch.tensor([5, 9, 7])[:, None]
        context = torch.randn(3, 9, 768) * mask[..., None]
        batch = Batch(("add", "t2a", "tts"), context, mask, torch.randn(3, 364, 768), torch.randn(3, 64, FRAMES))
        times, noise = torch.tensor([0.1, 0.5, 0.9]), torch.randn(3, 64, FRAMES)
    return NoisedBatch(batch, times, noise, torch.tensor([True, False, True]))


class Reference:
    """The DiT as docs/model.md has it, of plain operations on its weights."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def loss(self, noised: NoisedBatch) -> Tensor:
        clean, noise, times = noised.batch.latents, noised.noise, noised.times[:, None, None]
        velocity = self.velocity(clean + times * (noise - clean), noised)
        return ((noise - clean - velocity) ** 2).sum() / clean.numel()

    def velocity(self, latents: Tensor, noised: NoisedBatch) -> Tensor:
        tokens = self.perceptron(noised.batch.global_tokens, "global_embedder")
        tokens = tokens + self.timestep(noised.times)[:, None]
        latents = latents + torch.einsum("oc,bcf->bof", self.weights["conv_in.weight"][..., 0], latents)
        sequence = torch.cat([tokens, self.linear(latents.mT, "proj_in")], dim=1)
        context = self.perceptron(noised.batch.context, "context_embedder")
        for number in range(DEPTH):
            sequence = self.block(sequence, context, noised, f"transformer_blocks.{number}")
        velocity = self.linear(sequence[:, tokens.shape[1] :], "proj_out").mT
        return velocity + torch.einsum("oc,bcf->bof", self.weights["conv_out.weight"][..., 0], velocity)

    def block(self, sequence: Tensor, context: Tensor, noised: NoisedBatch, name: str) -> Tensor:
        query, key, value = self.linear(self.norm(sequence, f"{name}.norm1"), f"{name}.attn1.to_qkv").chunk(3, dim=-1)
        sequence = sequence + self.linear(attend(turned(query), turned(key), heads(value)), f"{name}.attn1.to_out")
        query = self.linear(self.norm(sequence, f"{name}.norm2"), f"{name}.attn2.to_q")
        key, value = self.linear(context, f"{name}.attn2.to_kv").chunk(2, dim=-1)
        seen = attend(heads(query), heads(key), heads(value), noised.batch.mask)
        added = self.linear(seen, f"{name}.attn2.to_out")
        sequence = torch.stack(
            [row + more if kept else row for row, more, kept in zip(sequence, added, noised.conditional, strict=True)]
        )
        value, gate = self.linear(self.norm(sequence, f"{name}.norm3"), f"{name}.ff.net.0.proj").chunk(2, dim=-1)
        return sequence + self.linear(value * functional.silu(gate), f"{name}.ff.net.2")

    def timestep(self, times: Tensor) -> Tensor:
        angles = 2 * math.pi * times[:, None] * self.weights["time_proj.weight"]
        hidden = self.linear(torch.cat([angles.cos(), angles.sin()], dim=-1), "timestep_embedder.linear_1")
        return self.linear(functional.silu(hidden), "timestep_embedder.linear_2")

    def perceptron(self, tokens: Tensor, name: str) -> Tensor:
        return self.linear(functional.silu(self.linear(tokens, f"{name}.0")), f"{name}.2")

    def linear(self, hidden: Tensor, name: str) -> Tensor:
        return hidden @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def norm(self, hidden: Tensor, name: str) -> Tensor:
        centred = hidden - hidden.mean(dim=-1, keepdim=True)
        return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * self.weights[f"{name}.weight"]


def heads(hidden: Tensor) -> Tensor:
    return hidden.reshape(*hidden.shape[:2], HEADS, -1).transpose(1, 2)


def turned(hidden: Tensor) -> Tensor:
    """Rotary positions on the first 32 of each head's dimensions, rotate-half, theta 10000."""
    split = heads(hidden)
    angles = torch.arange(split.shape[-2])[:, None] * 10_000 ** (-torch.arange(16) / 16)
    first, second, rest = split[..., :16], split[..., 16:32], split[..., 32:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -math.inf)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


def gradients(weights: Weights) -> Weights:
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def assert_same_gradients(found: Weights, wanted: Weights) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max())
        assert scale > 0, name
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


def test_gradients_of_all_weights_are_those_of_the_reference(
    transformer: AudioOmniTransformer, noised: NoisedBatch
) -> None:
    model = VelocityModel(transformer)
    wanted = {
        name: weight.detach().clone().requires_grad_(weight.requires_grad)
        for name, weight in transformer.named_parameters()
    }
    reference = Reference(wanted).loss(noised)
    reference.backward()

    loss = FlowMatchingLoss.of_examples(model, noised).mean()
    loss.backward()

    assert float(loss.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    assert wanted.keys() - model.trained.keys() == {"time_proj.weight"}
    assert_same_gradients(gradients(model.trained), gradients(wanted))


def test_gradients_of_an_adapter_are_those_of_the_reference(
    transformer: AudioOmniTransformer, noised: NoisedBatch
) -> None:
    base = {name: weight.detach().clone() for name, weight in transformer.named_parameters()}
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_qkv", "to_kv", "net.2"], init_lora_weights=False)
    with seeded(3):
        adapted = PeftModel(transformer, lora)
    model = VelocityModel(adapted)
    low_rank = {name: weight.detach().clone().requires_grad_() for name, weight in model.trained.items()}
    effective = dict(base)
    for name in (name for name in low_rank if ".lora_A." in name):
        place = name.removeprefix("base_model.model.").replace(".lora_A.default.weight", ".weight")
        product = low_rank[name.replace(".lora_A.", ".lora_B.")] @ low_rank[name]
        effective[place] = base[place] + ALPHA / RANK * product
    Reference(effective).loss(noised).backward()

    FlowMatchingLoss.of_examples(model, noised).mean().backward()

    assert len(low_rank) == 2 * 3 * DEPTH
    assert_same_gradients(gradients(model.trained), gradients(low_rank))


@pytest.mark.parametrize(("conditional", "scale"), [(True, 1.0), (False, 0.0)])
def test_what_is_trained_is_what_is_served(
    transformer: AudioOmniTransformer, noised: NoisedBatch, conditional: bool, scale: float
) -> None:
    batch = noised.batch
    unpadded = [tokens[row] for tokens, row in zip(batch.context, batch.mask, strict=True)]
    with torch.no_grad():
        contexts = transformer.collate_context([transformer.encode_context(tokens) for tokens in unpadded])
        global_embeds = torch.stack([transformer.encode_global(tokens) for tokens in batch.global_tokens])
        guidance = Guidance.of([scale] * 3, torch.device("cpu"))
        served = transformer(noised.latents, noised.times, contexts, global_embeds, guidance)

        context = batch.context * float(conditional)
        trained = VelocityModel(transformer)(noised.latents, noised.times, context, batch.mask, batch.global_tokens)

    assert float((trained - served).abs().max()) <= 1e-5 * float(served.abs().max())


def test_blocks_that_are_computed_twice_give_the_same_gradients(
    transformer: AudioOmniTransformer, noised: NoisedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = VelocityModel(transformer), []
    FlowMatchingLoss.of_examples(model, noised).mean().backward()
    wanted = {name: weight.grad.clone() for name, weight in model.trained.items() if weight.grad is not None}
    transformer.zero_grad()
    first = transformer.blocks[0].attn1
    run = first.forward
    monkeypatch.setattr(first, "forward", lambda *given: calls.append(1) or run(*given))

    transformer.enable_gradient_checkpointing()
    FlowMatchingLoss.of_examples(model, noised).mean().backward()

    assert len(calls) == 2
    for name, weight in model.trained.items():
        assert weight.grad is None or torch.equal(weight.grad, wanted[name])


def test_draws_follow_from_the_numbers_and_leave_the_generator_alone(noised: NoisedBatch) -> None:
    loss, before = FlowMatchingLoss(unconditional_share=0.5), torch.get_rng_state()

    def draw(*numbers: int) -> NoisedBatch:
        with seeded(*numbers):
            return loss.draw(noised.batch)

    one, same, other = draw(0, 7), draw(0, 7), draw(0, 8)

    assert torch.equal(one.noise, same.noise) and torch.equal(one.times, same.times)
    assert not torch.equal(one.noise, other.noise)
    assert torch.equal(torch.get_rng_state(), before)


def test_times_are_shifted_to_the_noise_and_texts_dropped_by_their_share() -> None:
    empty = torch.zeros(20_000, 1, 1)
    batch = Batch(("t2a",) * len(empty), empty, empty[..., 0] > 0, empty, empty)

    with seeded(0):
        plain, shifted = FlowMatchingLoss(0.25).draw(batch), FlowMatchingLoss(0.0, time_shift=6.0).draw(batch)

    assert float(plain.times.mean()) == pytest.approx(0.5, abs=0.01)
    # The mean of s u / (1 + (s - 1) u) over u in [0, 1] is s / (s - 1) - s ln(s) / (s - 1)^2.
    assert float(shifted.times.mean()) == pytest.approx(6 / 5 - 6 * math.log(6) / 25, abs=0.01)
    assert float(plain.conditional.float().mean()) == pytest.approx(0.75, abs=0.01)
    assert bool(shifted.conditional.all())
