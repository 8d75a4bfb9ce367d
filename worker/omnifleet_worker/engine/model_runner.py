"""The tensor side of the engine: what it does to requests of Audio-Omni. Knows no queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from omnifleet_shared.errors import OutOfMemory
from torch import Tensor

from ..models.audio_omni.pipeline import AudioOmniPipeline
from ..models.audio_omni.sampling import FRAME_SAMPLES, LATENT_FRAMES, prepare_latents
from ..models.audio_omni.thinker.decoding import DecodeState
from ..models.content_cache import ContentCache
from ..models.model_errors import read_device_error
from ..models.streams import LaunchedWork, SideStream, to_device, to_host
from .costs import RequestCosts
from .diffusion_batch import DiffusionBatch, DiffusionState, Known
from .diffusion_graphs import DiffusionGraphs
from .request import ChatInputs, DiffusionInputs, Inpainting, Kind, Request


class AudioOmniRunner:
    """Runs requests on one pipeline. Its methods raise OutOfMemory or DeviceFailed for what is the device's fault.

    Args:
        pipeline: the model.
        cache_bytes: of the device's memory, for encodings of prompts, voices, speech and videos that come again.
        costs: what a request holds while it is active; taken for free by default.
    """

    def __init__(
        self, pipeline: AudioOmniPipeline, *, cache_bytes: int = 2**28, costs: RequestCosts | None = None
    ) -> None:
        self.pipeline = pipeline
        self.encodings: ContentCache[Tensor] = ContentCache(cache_bytes, lambda encoding: encoding.nbytes)
        self.costs = costs or RequestCosts()
        self._clips: dict[Request, DiffusionState] = {}
        self._chats: dict[Request, DecodeState] = {}
        self._batch = DiffusionBatch(pipeline)
        kinds: tuple[Kind, ...] = ("diffusion", "chat")
        self._preparing = {kind: SideStream(pipeline.device, urgent=True) for kind in kinds}
        self._answering = SideStream(pipeline.device, urgent=True)
        self._decoding = SideStream(pipeline.device)
        if pipeline.device.type == "cuda":
            torch.cuda.synchronize(pipeline.device)  # the other streams read the weights without waiting for this one

    def weigh(self, request: Request) -> int:
        """Return what the request holds at the longest, in bytes."""
        if isinstance(request.inputs, DiffusionInputs):
            return self.costs.most_of_clip + self.costs.of_adapter(request.inputs.adapter)
        return self.costs.longest_chat

    def prepare(self, request: Request) -> LaunchedWork:
        """Condition a clip and draw its noise, or encode the media of a chat; beside the steps of others."""
        inputs, stream = request.inputs, self._preparing[request.kind]
        with self._on_device(), stream.working() as work:
            if isinstance(inputs, DiffusionInputs):
                state = self._prepare_clip(inputs)
                stream.hand_over(state.tensors)
                request.cost = self.costs.of_clip(state)
                self._clips[request] = state
            elif isinstance(inputs, ChatInputs):
                answer = self._prepare_chat(inputs, request.begun)
                stream.hand_over(answer.tensors, self._answering)
                request.cost = self.costs.of_chat(answer)
                self._chats[request] = answer
                request.draft, request.written = lambda: answer.text, lambda: answer.ids
        return work

    def advance(self, batch: Sequence[Request]) -> LaunchedWork:
        """Launch one solver step of every clip in one forward, or write one token of every answer."""
        if batch[0].kind == "chat":
            with self._on_device(), self._answering.working() as work:
                self._advance_chats(batch)
            return work
        states = {request: self._clips[request] for request in batch}
        with self._on_device(), LaunchedWork(self.pipeline.device) as work:
            self._batch.step(states)
        for state in states.values():
            state.launched = work
        return work

    def is_done(self, request: Request) -> bool:
        """Whether all steps are taken, or the answer has ended."""
        if request.kind == "diffusion":
            return request.step >= request.steps
        return self._chats[request].finished

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """Decode clips to float32 samples [2, 483328] scaled to a peak of 1, or give the answers' texts."""
        if batch[0].kind == "chat":
            return [self._chats[request].text.strip() for request in batch]
        states = [self._clips[request] for request in batch]
        for state in states:
            state.conditioning = None
        last_steps = [state.launched for state in states if state.launched is not None]
        with self._on_device():
            with self._decoding.working(after=last_steps):
                self._decoding.lend(state.latents for state in states)
                audio = to_host(self.pipeline.decode_latents(torch.stack([state.latents for state in states])))
            return list(audio.numpy())

    def capture_steps(self, most_clips: int) -> None:
        """Capture the steps of few clips as CUDA graphs, once they are compiled and warm; on a CPU there are none.

        Args:
            most_clips: that share a step.
        """
        if self.pipeline.device.type == "cuda":
            graphs = DiffusionGraphs(self.pipeline, most_clips)
            graphs.capture()
            self._batch.graphs = graphs
            torch.cuda.synchronize(self.pipeline.device)  # other streams go on from here without waiting for this one

    def latents(self, request: Request) -> Tensor:
        """Of a clip as it stands, [64, 236]."""
        return self._clips[request].latents

    def release(self, request: Request) -> None:
        """Forget the request's tensors."""
        self._clips.pop(request, None)
        self._batch.remove(request)
        state = self._chats.pop(request, None)
        if state is not None:
            self.pipeline.chatter.free(state)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        try:
            with torch.inference_mode():
                yield
        except RuntimeError as error:
            typed = read_device_error(error)
            if isinstance(typed, OutOfMemory):
                torch.cuda.empty_cache()
            raise typed from typed.__cause__

    def _prepare_clip(self, inputs: DiffusionInputs) -> DiffusionState:
        pipeline, cached = self.pipeline, self.encodings.get
        conditioning = pipeline.encode_conditioning(
            prompt=cached("prompt", inputs.prompt, lambda: pipeline.encode_prompt(inputs.prompt)),
            speech=cached("speech", inputs.speech, lambda: pipeline.encode_speech(inputs.speech)),
            audio=cached("audio", inputs.audio, lambda: pipeline.encode_audio(inputs.audio)),
            sync=cached("sync", inputs.video, lambda: self._encode_sync(inputs)),
            adapter=inputs.adapter,
        )
        latents = to_device(prepare_latents(inputs.seed), pipeline.device)
        known = None if inputs.inpainting is None else self._prepare_known(inputs.inpainting, latents)
        return DiffusionState(conditioning, latents, known, adapter=inputs.adapter)

    def _encode_sync(self, inputs: DiffusionInputs) -> Tensor:
        features = None if inputs.video is None else self.pipeline.encode_video(inputs.video)
        return self.pipeline.encode_sync(features)

    def _prepare_known(self, inpainting: Inpainting, noise: Tensor) -> Known:
        frames = torch.arange(LATENT_FRAMES, device=noise.device) * FRAME_SAMPLES
        unknown = (frames + FRAME_SAMPLES > inpainting.start) & (frames < inpainting.end)
        return Known(self.pipeline.encode_latents(inpainting.source), noise, unknown)

    def _prepare_chat(self, inputs: ChatInputs, begun: tuple[int, ...]) -> DecodeState:
        return self.pipeline.chatter.start(
            inputs.chat,
            max_new_tokens=inputs.max_new_tokens,
            temperature=inputs.temperature,
            seed=inputs.seed,
            written=begun,
        )

    def _advance_chats(self, batch: Sequence[Request]) -> None:
        states = [self._chats[request] for request in batch]
        self.pipeline.chatter.step(states)
        for request, state in zip(batch, states, strict=True):
            request.step = state.tokens
