"""The tensor side of the engine: what one step of Audio-Omni does to a batch. Knows no queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from omnifleet_shared.errors import EngineStopped, OutOfMemory
from torch import Tensor

from ..models.pipeline import AudioOmniPipeline, Conditioning
from ..models.sampling import FRAME_SAMPLES, LATENT_FRAMES, euler_step, euler_times, prepare_latents, restore_known
from ..models.thinker import ThinkerSession
from ..models.transformer import ContextBatch
from .request import ChatInputs, DiffusionInputs, Inpainting, Request


@dataclass(frozen=True)
class _Known:
    """What a clip holds besides its unknown frames."""

    latents: Tensor
    noise: Tensor
    unknown: Tensor


@dataclass
class _Clip:
    """A clip that is being sampled."""

    conditioning: Conditioning
    latents: Tensor
    times: Tensor
    known: _Known | None = None

    def move(self, latents: Tensor, time: Tensor) -> None:
        """Take the latents of the next step, the known ones as they are at that time."""
        if self.known is not None:
            latents = restore_known(latents, self.known.latents, self.known.noise, self.known.unknown, time)
        self.latents = latents


@dataclass(frozen=True)
class _Mates:
    """What a batch of clips shares as long as nobody joins or leaves."""

    requests: tuple[Request, ...]
    context: ContextBatch
    global_embeds: Tensor
    guidance: Tensor


class AudioOmniRunner:
    """Runs requests on one pipeline. Its methods raise OutOfMemory where the device has no memory left."""

    def __init__(self, pipeline: AudioOmniPipeline) -> None:
        self.pipeline = pipeline
        self._clips: dict[Request, _Clip] = {}
        self._chats: dict[Request, ThinkerSession] = {}
        self._mates: _Mates | None = None

    def prepare(self, request: Request) -> None:
        """Condition a clip and draw its noise, or read the chat to answer."""
        inputs = request.inputs
        with self._on_device():
            if isinstance(inputs, DiffusionInputs):
                self._clips[request] = self._prepare_clip(inputs)
            else:
                self._chats[request] = self._prepare_chat(inputs)

    def advance(self, batch: Sequence[Request]) -> None:
        """One Euler step of every clip in one forward, or one token of every answer."""
        with self._on_device():
            if batch[0].kind == "diffusion":
                self._advance_clips(batch)
            else:
                self._advance_chats(batch)

    def is_done(self, request: Request) -> bool:
        """Whether all steps are taken, or the answer has ended."""
        if request.kind == "diffusion":
            return request.step >= request.steps
        return self._chats[request].finished

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """Decode clips to float32 samples [2, 483328] scaled to a peak of 1, or give the answers' texts."""
        if batch[0].kind == "chat":
            return [self._chats[request].text.strip() for request in batch]
        with self._on_device():
            audio = self.pipeline.decode_latents(torch.stack([self._clips[request].latents for request in batch]))
            return list(audio.cpu().numpy())

    def release(self, request: Request) -> None:
        """Forget the request's tensors."""
        self._clips.pop(request, None)
        self._chats.pop(request, None)
        if self._mates is not None and request in self._mates.requests:
            self._mates = None

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        try:
            with torch.inference_mode():
                yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory("the GPU had no memory left for the job", None, "It is tried again") from error

    def _prepare_clip(self, inputs: DiffusionInputs) -> _Clip:
        pipeline = self.pipeline
        conditioning = pipeline.encode_conditioning(
            prompt=pipeline.encode_prompt(inputs.prompt),
            speech=pipeline.encode_speech(inputs.speech),
            audio=pipeline.encode_audio(inputs.audio),
            sync=pipeline.encode_sync(None if inputs.video is None else pipeline.encode_video(inputs.video)),
        )
        latents = prepare_latents(inputs.seed).to(pipeline.device)
        known = None if inputs.inpainting is None else self._prepare_known(inputs.inpainting, latents)
        return _Clip(conditioning, latents, euler_times(inputs.steps).to(pipeline.device), known)

    def _prepare_known(self, inpainting: Inpainting, noise: Tensor) -> _Known:
        frames = torch.arange(LATENT_FRAMES, device=noise.device) * FRAME_SAMPLES
        unknown = (frames + FRAME_SAMPLES > inpainting.start) & (frames < inpainting.end)
        return _Known(self.pipeline.encode_latents(inpainting.source), noise, unknown)

    def _prepare_chat(self, inputs: ChatInputs) -> ThinkerSession:
        return self.pipeline.chatter.start(
            inputs.chat,
            max_new_tokens=inputs.max_new_tokens,
            temperature=inputs.temperature,
            seed=inputs.seed,
        )

    def _advance_clips(self, batch: Sequence[Request]) -> None:
        mates = self._gather(batch)
        clips = [self._clips[request] for request in batch]
        latents = torch.stack([clip.latents for clip in clips])
        now, after = (
            torch.stack([clip.times[request.step + ahead] for clip, request in zip(clips, batch, strict=True)])
            for ahead in (0, 1)
        )
        velocity = self.pipeline.transformer(latents, now, mates.context, mates.global_embeds, mates.guidance)
        moved = euler_step(latents, velocity, now, after)
        for clip, request, place, time in zip(clips, batch, moved, after, strict=True):
            clip.move(place, time)
            request.step += 1

    def _advance_chats(self, batch: Sequence[Request]) -> None:
        for request in batch:
            session = self._chats[request]
            if session.tokens != request.step:  # a failed step chose its token and lost it: no further one would fit
                raise EngineStopped("a step of the answer failed half way")
            session.step()
            request.step = session.tokens

    def _gather(self, batch: Sequence[Request]) -> _Mates:
        if self._mates is None or self._mates.requests != tuple(batch):
            conditionings = [self._clips[request].conditioning for request in batch]
            guidance = [request.inputs.guidance for request in batch if isinstance(request.inputs, DiffusionInputs)]
            self._mates = _Mates(
                requests=tuple(batch),
                context=self.pipeline.transformer.collate_context([one.context for one in conditionings]),
                global_embeds=torch.stack([one.global_embeds for one in conditionings]),
                guidance=torch.tensor(guidance),
            )
        return self._mates
