"""Trains a small DiT on the demo's sounds with the worker's own trainer: `make demo-checkpoint`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.tasks import DescribedEdit
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from omnifleet_worker.models.folder import INDEX, load_component
from omnifleet_worker.training.batches import EncodedDataset
from omnifleet_worker.training.config import TrainConfig
from omnifleet_worker.training.examples.example_encoder import EncodedExample
from omnifleet_worker.training.examples.latent_cache import LatentCache
from omnifleet_worker.training.run_states import RunStates
from omnifleet_worker.training.trainer import Trainer
from omnifleet_worker.training.velocity_model import TRANSFORMER, VelocityModel
from torch import Tensor

from .checkpoint import untrained_pipeline
from .grains import LEVEL, render
from .parts import fitted_projection, meanings
from .prompts import EDIT_FRAMES, FRAMES, answer, ask
from .sounds import NAMES, TEXTS, Levels, make
from .trained import store

_UNREAD = Media(uri="file:///none")
SEED = 1


def main() -> None:
    """Make the sounds, train on them, and write the checkpoint; an interrupted run goes on where it stopped."""
    parser = argparse.ArgumentParser(prog="python -m demo.training.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".cache/demo-training"))
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--clips", type=int, default=1600, help="sounds to learn from text alone")
    parser.add_argument("--mixtures", type=int, default=320, help="two sounds at once, to learn edits from")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = DemoData(asked.out)
    examples = list(data.clips(asked.clips)) + list(data.edits(asked.mixtures))
    stopped_by = train(asked.out, data.cache, examples, asked.steps)
    if stopped_by is not None:
        raise SystemExit(128 + stopped_by)  # as a shell says it of a process that the signal ended
    export(asked.out)


class DemoData:
    """Encodes sounds and prompts into the trainer's cache.

    Args:
        out: folder of the run, which gets the checkpoint that training begins with.
    """

    def __init__(self, out: Path) -> None:
        if not (out / "base" / INDEX).exists():  # written last
            fitted_pipeline().save_pretrained(out / "base")
        self.pipeline = AudioOmniPipeline.from_pretrained(out / "base")
        self.cache = LatentCache(out / "cache", "demo")
        self._prompts = Prompts(self.pipeline.prompts)
        self._silence = self._keep("audio", "none", lambda: self.pipeline.encode_audio(None))
        self._speech = self._keep("speech", "none", lambda: self.pipeline.encode_speech(None))
        self._sync = self._keep("sync", "none", lambda: self.pipeline.encode_sync(None))

    def clips(self, count: int) -> Iterator[EncodedExample]:
        """Sounds of texts."""
        random = np.random.default_rng(SEED)
        for number in range(count):
            asked = ask(random, held_out=False)
            latents = self._levels(f"clip {number}", answer(asked, random))
            yield self._example("t2a", asked.text, self._silence, latents)

    def edits(self, count: int) -> Iterator[EncodedExample]:
        """Of each mixture: both sounds kept, both taken out, and one added to the other."""
        random = np.random.default_rng(SEED + 1)
        for number in range(count):
            names = [NAMES[place] for place in random.choice(len(NAMES), 2, replace=False)]
            sounds = [make(name, random, EDIT_FRAMES) * random.uniform(0.7, 1) for name in names]
            texts = [str(random.choice(TEXTS[name])) for name in names]
            heard = self._heard(f"mixture {number}", sounds[0] + sounds[1])
            alone = [self._levels(f"edit {number} {place}", sound) for place, sound in enumerate(sounds)]
            for place, text in enumerate(texts):
                yield self._example("extract", text, heard, alone[place])
                yield self._example("remove", text, heard, alone[1 - place])
            if number % 3 == 0:
                both = self._levels(f"both {number}", sounds[0] + sounds[1])
                yield self._example("add", texts[1], self._heard(f"first {number}", sounds[0]), both)

    def _example(self, task: str, text: str, audio: str, latents: str) -> EncodedExample:
        key = self.cache.key("prompt", (task, text))
        self.cache.fill(key, lambda: encode_prompt(self.pipeline, self._prompts, task, text))
        return EncodedExample(task, 10.96, key, self._speech, self._sync, audio, latents)

    def _heard(self, name: str, levels: Levels) -> str:
        return self._keep("audio", name, lambda: self.pipeline.encode_audio(render(levels).astype(np.float32)))

    def _levels(self, name: str, levels: Levels) -> str:
        whole = np.zeros((FRAMES, levels.shape[1]))
        whole[: len(levels)] = levels
        return self._keep("latents", name, lambda: torch.from_numpy(LEVEL * whole.T).float())

    def _keep(self, kind: str, name: str, make_it: Callable[[], Tensor]) -> str:
        key = self.cache.key(kind, name)
        self.cache.fill(key, make_it)
        return key


def encode_prompt(pipeline: AudioOmniPipeline, prompts: Prompts, task: str, text: str) -> Tensor:
    """Context tokens of a request, as a worker makes them."""
    if task == "t2a":
        return pipeline.encode_prompt(prompts.sound("t2a", text))
    edit = DescribedEdit.model_construct(name=task, audio=_UNREAD, desc=text)
    return pipeline.encode_prompt(prompts.edit(edit))


def fitted_pipeline() -> AudioOmniPipeline:
    """The untrained pipeline, with its omni projection fitted to prompts of all kinds."""
    pipeline = untrained_pipeline()
    prompts, random = Prompts(pipeline.prompts), np.random.default_rng(SEED + 2)
    chats = [prompts.sound("t2a", ask(random, held_out=False).text) for _ in range(150)]
    for texts in TEXTS.values():
        for name in ("add", "remove", "extract"):
            chats += [prompts.edit(DescribedEdit.model_construct(name=name, audio=_UNREAD, desc=x)) for x in texts]
    with torch.inference_mode():
        states = torch.cat([pipeline.chatter.encode(chat).float() for chat in chats]).clone()
        wanted = torch.cat([meanings(_tokens(pipeline, chat)) for chat in chats])
    fitted_projection(states, wanted, pipeline.omni_projection.projection)
    return pipeline


def _tokens(pipeline: AudioOmniPipeline, chat: Chat) -> list[str]:
    tokenizer = pipeline.processor.tokenizer
    return [tokenizer.decode([token]) for token in tokenizer(chat.text)["input_ids"]]


def train(out: Path, cache: LatentCache, examples: list[EncodedExample], steps: int) -> int | None:
    """Train, or go on where an earlier call was ended; gives the signal that ended this one, None where it is done."""
    config = TrainConfig(
        checkpoint=out / "base",
        out=out,
        train=(out / "made",),
        method="full",
        weights={"t2a": 4.0, "extract": 2.0, "remove": 2.0},
        steps=steps,
        batch_size=8,
        learning_rate=1.5e-3,
        warmup_steps=60,
        time_shift=6.0,
        ema=0.998,
        precision="float32",
        save_every=100,
        validate_every=10**9,
        seed=SEED,
    )
    model = VelocityModel.load(config, torch.float32)
    model.transformer.context_embedder.requires_grad_(False)
    facts = {**config.recipe(), "examples": len(examples)}
    states = RunStates(out / "states", facts)
    trainer = Trainer(config, model, EncodedDataset(examples, cache), None, states, Accelerator(cpu=True))
    with states.locked():
        return trainer.run()


def export(out: Path) -> None:
    """Put the trained DiT in the place of the untrained one.

    `checkpoint` below `out` is what a worker serves, and `trained.safetensors` what the repository keeps of it.
    """
    pipeline = AudioOmniPipeline.from_pretrained(out / "base")
    pipeline.transformer = load_component(out / TRANSFORMER, AudioOmniTransformer, torch.float32)
    pipeline.save_pretrained(out / "checkpoint")
    store(pipeline, out / "trained.safetensors")


if __name__ == "__main__":
    main()
