"""Chats as the thinker's text layers take them: checked, tokenised, with sounds and frames encoded in their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from omnifleet_shared.errors import InvalidJob, MediaEmpty, MediaTooLong
from torch import Tensor
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from ...streams import to_device
from ..chat import AUDIO_MARKS, VIDEO_MARKS, Chat
from .decoding import Prompt
from .hearing import encode_recordings, token_count
from .mel import LogMel

_MARK = re.compile(r"<\|\w+\|>")


@dataclass(frozen=True, eq=False)
class _Video:
    """Frames as the vision tower takes them."""

    pixels: Tensor
    grid: Tensor
    seconds_per_grid: Tensor


class PromptReader:
    """Reads chats for one thinker. It keeps nothing of them, and may be used from several threads.

    Args:
        model: the thinker, on its device.
        processor: the tokeniser, mel, and image and video preprocessing that belong to it.
    """

    def __init__(self, model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor) -> None:
        self._model = model
        self._processor = processor
        self._marks = frozenset(processor.tokenizer.get_added_vocab())
        # A tokeniser that was saved with padding forgets it at the first call, which no other call may run beside.
        processor.tokenizer("")

    def read(self, chat: Chat, frames_per_second: float, room: int) -> Prompt:
        """The chat's embeddings and positions on the device.

        Args:
            chat: what is asked.
            frames_per_second: at which its frames were taken.
            room: new tokens that are to fit into the model's context behind it.

        Raises:
            InvalidJob: the text is too long, or holds the model's control marks.
            MediaEmpty: a clip without samples or frames.
            MediaTooLong: a clip over the processor's window, or media with more tokens than the model's context.
        """
        self._check_marks(chat)
        self._check_media(chat)
        video = self._process_video(chat, frames_per_second) if chat.video else None
        ids = torch.tensor(self._tokenize(chat, video))
        self._check_length(chat, ids, room)
        positions = self._place(ids, chat, video)
        embeds = self._embed(to_device(ids, self._model.device), chat, video)
        return Prompt(embeds, to_device(positions, self._model.device), int(positions.max()) + 1)

    def follow(self, prompt: Prompt, ids: Sequence[int]) -> Prompt:
        """The prompt with the first tokens of its answer behind it."""
        device = self._model.device
        positions = torch.arange(prompt.next_position, prompt.next_position + len(ids)).expand(3, -1)
        embeds: Tensor = self._model.get_input_embeddings()(to_device(torch.tensor(ids), device))
        return Prompt(
            torch.cat([prompt.embeds, embeds]),
            torch.cat([prompt.positions, to_device(positions, device)], 1),
            prompt.next_position,
        )

    @cached_property
    def _mel(self) -> LogMel:
        return LogMel(self._processor.feature_extractor, self._model.device)

    def _process_video(self, chat: Chat, frames_per_second: float) -> _Video:
        options: dict[str, Any] = {
            "videos_kwargs": {
                "do_sample_frames": False,
                "fps": frames_per_second,
                "input_data_format": "channels_last",
            },
            "return_tensors": "pt",
        }
        inputs = self._processor(text=[VIDEO_MARKS * len(chat.video)], videos=list(chat.video), **options)
        return _Video(inputs["pixel_values_videos"], inputs["video_grid_thw"], inputs["video_second_per_grid"])

    def _tokenize(self, chat: Chat, video: _Video | None) -> list[int]:
        """The chat's tokens, with a mark for every embedding of its media."""
        processor = self._processor
        sounds = [token_count(self._mel.frames(wave.size)) for wave in chat.audio]
        merged = processor.video_processor.merge_size**2
        frames = [] if video is None else (video.grid.prod(-1) // merged).tolist()
        text = _repeat(chat.text, processor.audio_token, iter(sounds))
        ids: list[int] = processor.tokenizer(_repeat(text, processor.video_token, iter(frames)))["input_ids"]
        return ids

    def _place(self, ids: Tensor, chat: Chat, video: _Video | None) -> Tensor:
        """Positions [3, n], worked out here because the model's `forward` would keep their offset."""
        if not (chat.audio or chat.video):
            return torch.arange(len(ids)).expand(3, -1)
        frames = [self._mel.frames(wave.size) for wave in chat.audio]
        place: Any = self._model.get_rope_index  # typed for tensors that do not exist
        positions: Tensor = place(
            ids[None],
            video_grid_thw=None if video is None else video.grid,
            attention_mask=torch.ones_like(ids)[None],
            use_audio_in_video=False,
            audio_seqlens=torch.tensor(frames) if frames else None,
            second_per_grids=None if video is None else video.seconds_per_grid,
        )[0]
        return positions[:, 0]

    def _embed(self, ids: Tensor, chat: Chat, video: _Video | None) -> Tensor:
        embeds: Tensor = self._model.get_input_embeddings()(ids)
        if chat.audio:
            heard = self._hear(chat.audio).to(embeds.dtype)
            embeds = embeds.masked_scatter((ids == self._processor.audio_token_id)[:, None], heard)
        if video is not None:
            pixels, grid = (to_device(tensor, ids.device) for tensor in (video.pixels, video.grid))
            look: Any = self._model.model.get_video_features  # typed for tensors that do not exist
            seen = look(pixels, grid, return_dict=True).pooler_output
            mask = (ids == self._processor.video_token_id)[:, None]
            embeds = embeds.masked_scatter(mask, torch.cat(seen).to(embeds.dtype))
        return embeds

    def _hear(self, waves: tuple[np.ndarray, ...]) -> Tensor:
        frames = [self._mel.frames(wave.size) for wave in waves]
        return encode_recordings(self._model.model.audio_tower, self._mel(waves), frames)

    def _check_marks(self, chat: Chat) -> None:
        """Refuse user text that would be read as the chat's own structure, or as media that are not there."""
        placed = chat.text.count(AUDIO_MARKS), chat.text.count(VIDEO_MARKS)
        own_words = chat.words.replace(AUDIO_MARKS, "").replace(VIDEO_MARKS, "") + chat.system
        marks = self._marks.intersection(_MARK.findall(own_words))
        if marks or placed != (len(chat.audio), len(chat.video)):
            raise InvalidJob(
                "the text holds control marks of the model",
                "history" if chat.earlier and not _MARK.search(chat.user) else "text",
                "Leave out marks such as <|im_end|>",
                {"marks": sorted(marks)},
            )

    def _check_media(self, chat: Chat) -> None:
        window = self._processor.feature_extractor
        for wave in chat.audio:
            _check_wave(wave, shortest=window.n_fft, longest=window.n_samples, rate=window.sampling_rate)
        if any(len(frames) == 0 for frames in chat.video):
            raise MediaEmpty("the video has no frames", "video", "Send a video with at least one frame")

    def _check_length(self, chat: Chat, ids: Tensor, room: int) -> None:
        config: Any = self._model.config.text_config
        context = config.max_position_embeddings
        if len(ids) + room <= context:
            return
        marks = torch.tensor([self._processor.audio_token_id, self._processor.video_token_id])
        media = int(torch.isin(ids, marks).sum())
        details = {"tokens": len(ids), "new_tokens": room, "context": context}
        if len(ids) - media + room > context:
            raise InvalidJob("the text is longer than the model can read", "text", "Send a shorter text", details)
        field = "video" if chat.video else "audio"
        raise MediaTooLong(f"the {field} is longer than the model can take in", field, "Send a shorter clip", details)


def _repeat(text: str, mark: str, counts: Iterator[int]) -> str:
    """The text with each of the marks repeated as often as the next of the counts says."""
    return re.sub(re.escape(mark), lambda found: found[0] * next(counts), text)


def _check_wave(wave: np.ndarray, *, shortest: int, longest: int, rate: int) -> None:
    if wave.size < shortest:
        raise MediaEmpty(f"the audio is shorter than {shortest / rate * 1000:.0f} ms", "audio", "Send a longer clip")
    if wave.size > longest:
        raise MediaTooLong(
            f"the audio is longer than the {longest / rate:.0f} s that the model can listen to",
            "audio",
            "Send a shorter clip, or split it",
            {"seconds": wave.size / rate, "limit": longest / rate},
        )
