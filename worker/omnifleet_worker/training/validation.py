"""How well a model does on what it did not learn from: by loss for each task, and by ear."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..models import folder as checkpoint_folder
from ..models.audio_omni.autoencoder import AudioOmniAutoencoder
from ..models.audio_omni.sampling import euler_step, euler_times, normalise_peak, prepare_latents
from ..models.audio_omni.transformer import AudioOmniTransformer, Guidance
from .batches import EncodedDataset, Row, collate
from .config import SampleOptions
from .flow_matching import FlowMatchingLoss, NoisedBatch, seeded
from .task_losses import TaskLosses

TIMES = (0.125, 0.375, 0.625, 0.875)
"""At which each example's loss is taken."""


class Validation:
    """Validates with the same times, noise and seeds each time, so that its numbers can be compared.

    Args:
        dataset: examples that nothing is learned from.
        checkpoint: whose VAE makes samples heard.
        options: of the samples.
        accelerator: its processes share the examples.
    """

    def __init__(
        self, dataset: EncodedDataset, checkpoint: Path, options: SampleOptions, accelerator: Accelerator
    ) -> None:
        self._dataset = dataset
        self._checkpoint = checkpoint
        self._options = options
        self._accelerator = accelerator

    @torch.no_grad()
    def losses(self, model: nn.Module) -> dict[str, float]:
        """The mean loss of each task's examples; called by every process."""
        losses = TaskLosses((example.task for example in self._dataset.examples), self._accelerator)
        for index in range(self._accelerator.process_index, len(self._dataset), self._accelerator.num_processes):
            row = self._dataset[index]
            noised = _at_all_times(row, index).to(self._accelerator.device)
            losses.add([row.task], FlowMatchingLoss.of_examples(model, noised).mean()[None])
        return losses.means().by_task

    @torch.no_grad()
    def samples(self, transformer: AudioOmniTransformer) -> Iterator[tuple[str, Tensor]]:
        """What the model makes of the first examples: a name, and audio [2, 483328] with a peak of 1."""
        for index, example in islice(enumerate(self._dataset.examples), self._options.count):
            latents = sample(transformer, self._dataset[index], self._options)
            audio = normalise_peak(self._vae.decoder(latents.to(self._vae.dtype)))
            yield f"samples/{index}-{example.task}", audio[0].cpu()

    @cached_property
    def _vae(self) -> AudioOmniAutoencoder:
        vae = checkpoint_folder.load_component(self._checkpoint / "vae", AudioOmniAutoencoder, torch.float32)
        vae.to(self._accelerator.device).eval().requires_grad_(False)
        assert isinstance(vae, AudioOmniAutoencoder)
        return vae


def sample(transformer: AudioOmniTransformer, row: Row, options: SampleOptions) -> Tensor:
    """Sample latents [1, 64, 236] for an example's request, as a worker does for one with this seed."""
    device = transformer.device
    context = transformer.collate_context([transformer.encode_context(row.context.to(device))])
    global_embeds = transformer.encode_global(row.global_tokens.to(device))[None]
    guidance = Guidance.of([options.guidance], device)
    latents = prepare_latents(options.seed)[None].to(device)
    for time, following in pairwise(euler_times(options.steps).to(device)):
        velocity = transformer(latents, time[None], context, global_embeds, guidance)
        latents = euler_step(latents, velocity, time[None], following[None])
    return latents


def _at_all_times(row: Row, index: int) -> NoisedBatch:
    batch = collate([row] * len(TIMES))
    with seeded(index):
        noise = torch.randn(batch.latents.shape)
    return NoisedBatch(batch, torch.tensor(TIMES), noise, torch.ones(len(TIMES), dtype=torch.bool))
