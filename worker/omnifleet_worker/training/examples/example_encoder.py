"""From an example to tensors, as a worker would encode the request and the VAE its answer: each made once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaNotFound
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.tasks import DescribedEdit, StyleTransfer
from torch import Tensor

from ...checkpoint.manifest import read_manifest
from ...jobs.prompts import Prompts
from ...jobs.speech import CLIP_SECONDS, join_transcript
from ...media.decode import decode_audio
from ...media.limits import MediaLimits
from ...media.signal import resample, to_mono
from ...media.video import decode_video
from ...models import folder as checkpoint_folder
from ...models.audio_omni.chat import Chat
from ...models.audio_omni.pipeline import AudioOmniPipeline
from ...models.audio_omni.sampling import SAMPLE_RATE
from ...models.audio_omni.video import FRAME_SIDE, FRAMES_PER_SECOND, WINDOW_SECONDS, thinker_frames
from .data import Example, ExampleLine, files_of
from .data_files import DataFile, find_file
from .latent_cache import LatentCache, hash_file

_LIMITS = MediaLimits(max_seconds=CLIP_SECONDS)
_UNREAD = Media(uri="file:///none")


@dataclass(frozen=True)
class EncodedExample:
    """Names of an example's encodings in the cache.

    Attributes:
        task: of the example.
        seconds: length of what is learned.
        prompt: context tokens [n, 768].
        speech: context tokens [256, 768].
        sync: global tokens [128, 768].
        audio: global tokens [236, 768].
        latents: [64, 236] of the answer.
    """

    task: str
    seconds: float
    prompt: str
    speech: str
    sync: str
    audio: str
    latents: str


class ExampleEncoder:
    """Encodes examples with one frozen checkpoint, which is loaded only where something is not in the cache yet.

    Args:
        checkpoint: its folder.
        cache_folder: where encodings are kept.
        device: where to encode.
        dtype: of the thinker.

    Raises:
        CheckpointInvalid: the folder is no whole checkpoint.
    """

    def __init__(self, checkpoint: Path, cache_folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._device, self._dtype = device, dtype
        self._prompts = Prompts(checkpoint_folder.read_data(checkpoint)["prompts"])
        self.cache = LatentCache(cache_folder, f"{fingerprint(checkpoint)} {dtype}")

    @cached_property
    def _pipeline(self) -> AudioOmniPipeline:
        return AudioOmniPipeline.from_pretrained(self._checkpoint, device=self._device, dtype=self._dtype)

    def free(self) -> None:
        """Give back the memory of the checkpoint."""
        self.__dict__.pop("_pipeline", None)

    def encode(self, example: Example) -> EncodedExample:
        """Encode what is not in the cache yet. Raises MediaError with line and field, and what a pipeline raises."""
        line = example.line
        shas = {name: _sha256(path) for name, path in files_of(line).items()}
        video, voice, source = (shas.get(name) for name in ("video", "voice", "audio"))
        said, chat = _words_to_say(line), self._chat(line)
        heard = "voice" if voice else "audio"
        return EncodedExample(
            task=line.task,
            seconds=example.seconds,
            prompt=self._made("prompt", (chat.system, chat.user, video), lambda: self._encode_prompt(chat, example)),
            speech=self._made("speech", said, lambda: self._pipeline.encode_speech(said)),
            sync=self._made("sync", video, lambda: self._encode_sync(example)),
            audio=self._made("audio", voice or source, lambda: self._encode_audio(example, heard)),
            latents=self._made("latents", (voice, shas["target"]), lambda: self._encode_latents(example)),
        )

    def _made(self, kind: str, content: object, make: Callable[[], Tensor]) -> str:
        key = self.cache.key(kind, content)
        self.cache.fill(key, make)
        return key

    def _chat(self, line: ExampleLine) -> Chat:
        if line.instruction is not None:
            return self._prompts.instruction(line.instruction)
        text = line.text or ""
        match line.task:
            case "tts" | "vc":
                return self._prompts.speech()
            case "v2a" | "v2m":
                return self._prompts.video_to_audio(line.task, text, np.empty(0))
            case "t2a" | "t2m":
                return self._prompts.sound(line.task, text)
            case "style":
                return self._prompts.edit(StyleTransfer(audio=_UNREAD, source=line.replaces or "", target=text))
            case "add" | "remove" | "extract":
                return self._prompts.edit(DescribedEdit(name=line.task, audio=_UNREAD, desc=text))

    def _encode_prompt(self, chat: Chat, example: Example) -> Tensor:
        if not chat.video:
            return self._pipeline.encode_prompt(chat)
        seen = thinker_frames(_frames(example))
        return self._pipeline.encode_prompt(Chat(system=chat.system, user=chat.user, video=(seen,)))

    def _encode_sync(self, example: Example) -> Tensor:
        if example.line.video is None:
            return self._pipeline.encode_sync(None)
        return self._pipeline.encode_sync(self._pipeline.encode_video(_frames(example)))

    def _encode_audio(self, example: Example, field: str) -> Tensor:
        path = files_of(example.line).get(field)
        return self._pipeline.encode_audio(None if path is None else _samples(path, example, field, 1)[0])

    def _encode_latents(self, example: Example) -> Tensor:
        target = _samples(example.line.target, example, "target", 2)
        if example.line.voice is not None:  # the model goes on where the voice ends
            target = np.concatenate([_samples(example.line.voice, example, "voice", 2), target], axis=1)
        return self._pipeline.encode_latents(target)


def fingerprint(checkpoint: Path) -> str:
    """A hash of all of a checkpoint's weights: from its manifest, or of the files where it has none."""
    manifest = read_manifest(checkpoint)
    if manifest is not None:
        known = {path: record.sha256 for path, record in manifest.items()}
    else:
        known = {str(path.relative_to(checkpoint)): hash_file(path) for path in checkpoint.glob("*/*.safetensors")}
    return hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()


def data_digest(examples: list[EncodedExample]) -> str:
    """A hash of the contents of examples, in their order."""
    return hashlib.sha256(repr([astuple(example) for example in examples]).encode()).hexdigest()


def _words_to_say(line: ExampleLine) -> str | None:
    if line.task not in ("tts", "vc"):
        return None
    words = line.text or ""
    return words if line.transcript is None else join_transcript(line.transcript, words)


def _sha256(path: Path) -> str:
    with _found(path).open() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> bytes:
    return _found(path).read_bytes()


def _found(path: Path) -> DataFile:
    file = find_file(path)
    if file is None:
        raise MediaNotFound(f"{path} is there no more", path.name, "Put it back, or leave its line out")
    return file


def _samples(path: Path, example: Example, field: str, channels: int) -> NDArray[np.float32]:
    """Samples [channels, n] at 44.1 kHz; more than two channels, or other than wanted, are mixed to one first."""
    audio = decode_audio(_read(path), field=f"{example.place}: {field}", limits=_LIMITS)
    if len(audio.samples) != channels:
        audio = to_mono(audio)
    samples = resample(audio, SAMPLE_RATE).samples.astype(np.float32, copy=False)
    return np.repeat(samples, channels, axis=0) if len(samples) == 1 else samples


def _frames(example: Example) -> NDArray[np.uint8]:
    assert example.line.video is not None
    size = (FRAME_SIDE, FRAME_SIDE)
    data, field = _read(example.line.video), f"{example.place}: video"
    return decode_video(
        data, frames_per_second=FRAMES_PER_SECOND, max_seconds=WINDOW_SECONDS, size=size, field=field
    ).frames
