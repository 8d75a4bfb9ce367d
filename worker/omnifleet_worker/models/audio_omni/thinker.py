"""The thinker (Qwen2.5-Omni): hidden states that condition the DiT, and chats answered one token at a time."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from omnifleet_shared.errors import InvalidJob, MediaEmpty, MediaTooLong
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from omnifleet_worker.models.audio_omni.chat import AUDIO_MARKS, VIDEO_MARKS, Chat
from omnifleet_worker.models.audio_omni.decoding import AnswerBatch, Prompt, ThinkerSession

_STOP_MARKS = ("<|im_end|>", "<|endoftext|>")
_MARK = re.compile(r"<\|\w+\|>")


class Thinker:
    """Runs one thinker for many requests; nothing of a request stays on the model between calls.

    Args:
        model: the thinker, on its device; any number of sessions may be open on it.
        processor: the tokeniser, mel, and image and video preprocessing that belong to it.
    """

    def __init__(self, model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor) -> None:
        self._model: Any = model  # its own types ask for less than it takes, or promise less than it has
        self._processor = processor
        self._encoder = _without_last_layer(model.model)
        self._marks = frozenset(processor.tokenizer.get_added_vocab())
        self._stops = frozenset(processor.tokenizer.convert_tokens_to_ids(list(_STOP_MARKS)))
        self._answers = AnswerBatch(model)
        # Conditioning and prefill run on threads of their own, and tokenizers keep their padding as state.
        self._processing = threading.Lock()

    @torch.inference_mode()
    def encode(self, chat: Chat) -> Tensor:
        """Hidden states [n, 2048] that go into the last layer, in the model's dtype (docs/model.md, "Omni prompt").

        Raises:
            InvalidJob: the text is too long, or holds the model's control marks.
            MediaEmpty: a clip without samples or frames.
            MediaTooLong: a clip over the processor's window, or media with more tokens than the model's context.
        """
        prompt = self._prepare(chat, frames_per_second=2.0, room=0)
        hidden = self._encoder(**prompt.inputs, position_ids=prompt.positions, use_cache=False)
        return hidden.last_hidden_state[0]

    @torch.inference_mode()
    def start(
        self,
        chat: Chat,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        frames_per_second: float = 2.0,
    ) -> ThinkerSession:
        """Read the chat and return the session that answers it; the first `step` gives its first token.

        Args:
            chat: what is asked.
            max_new_tokens: length at which the answer is cut.
            temperature: 0 takes the likeliest token; above, tokens are drawn, flatter the higher it is.
            seed: of the draw.
            frames_per_second: at which the chat's frames were taken; the positions in time follow from it.

        Raises: as `encode`; the new tokens count against the model's context.
        """
        prompt = self._prepare(chat, frames_per_second, room=max_new_tokens)
        session = ThinkerSession(
            self._processor.tokenizer,
            stops=self._stops,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )
        self._read(session, prompt)
        return session

    def step(self, sessions: Sequence[ThinkerSession]) -> None:
        """Write one token of every session that is not finished. Where it raises, it may be called again."""
        self._answers.step(sessions)

    def let_go(self, session: ThinkerSession) -> None:
        """Forget a session that is stepped no more."""
        self._answers.let_go(session)

    def _read(self, session: ThinkerSession, prompt: Prompt) -> None:
        cache = DynamicCache(config=self._model.config.text_config)
        hidden = self._model.model(
            **prompt.inputs, position_ids=prompt.positions, cache=cache, use_cache=True
        ).last_hidden_state[0, -1]
        # The head for the last row alone: over a long prompt's every row it would take gigabytes.
        logits = self._model.lm_head(hidden)
        session.cache, session.length = cache, cache.get_seq_length()
        session.next_position = int(prompt.positions.max()) + 1
        session.take_in(logits, int(logits.argmax()))

    def _prepare(self, chat: Chat, frames_per_second: float, room: int) -> Prompt:
        _check_marks(chat, self._marks)
        self._check_media(chat)
        inputs = self._process(chat, frames_per_second)
        self._check_length(chat, inputs["input_ids"][0], room)
        positions = self._place(inputs).to(self._model.device)
        # A chat on its own has no padding, so its mask says nothing.
        del inputs["attention_mask"]
        return Prompt({name: value.to(self._model.device) for name, value in inputs.items()}, positions)

    def _process(self, chat: Chat, frames_per_second: float) -> dict[str, Tensor]:
        media: dict[str, Any] = {"return_tensors": "pt"}
        if chat.audio:
            media["audio"] = list(chat.audio)
        if chat.video:
            media["videos"] = list(chat.video)
            media["videos_kwargs"] = {
                "do_sample_frames": False,
                "fps": frames_per_second,
                "input_data_format": "channels_last",
            }
        with self._processing:
            return dict(self._processor(text=[chat.text], **media))

    def _place(self, inputs: dict[str, Tensor]) -> Tensor:
        """Positions [3, 1, n], worked out here because `forward` would keep their offset on the model."""
        audio_mask = inputs.get("feature_attention_mask")
        positions, _ = self._model.get_rope_index(
            inputs["input_ids"],
            video_grid_thw=inputs.get("video_grid_thw"),
            attention_mask=inputs["attention_mask"],
            use_audio_in_video=False,
            audio_seqlens=None if audio_mask is None else audio_mask.sum(-1),
            second_per_grids=inputs.get("video_second_per_grid"),
        )
        return positions

    def _check_media(self, chat: Chat) -> None:
        window = self._processor.feature_extractor
        for wave in chat.audio:
            _check_wave(wave, shortest=window.n_fft, longest=window.n_samples, rate=window.sampling_rate)
        if any(len(frames) == 0 for frames in chat.video):
            raise MediaEmpty("the video has no frames", "video", "Send a video with at least one frame")

    def _check_length(self, chat: Chat, ids: Tensor, room: int) -> None:
        context = self._model.config.text_config.max_position_embeddings
        if len(ids) + room <= context:
            return
        marks = torch.tensor([self._processor.audio_token_id, self._processor.video_token_id])
        media = int(torch.isin(ids, marks).sum())
        details = {"tokens": len(ids), "new_tokens": room, "context": context}
        if len(ids) - media + room > context:
            raise InvalidJob("the text is longer than the model can read", "text", "Send a shorter text", details)
        field = "video" if chat.video else "audio"
        raise MediaTooLong(f"the {field} is longer than the model can take in", field, "Send a shorter clip", details)


def _without_last_layer(thinker: Any) -> nn.Module:
    """The same modules and weights, with neither the last text layer nor the final norm: conditioning needs none."""
    text = thinker.language_model
    return _twin(thinker, language_model=_twin(text, layers=text.layers[:-1], norm=nn.Identity()))


def _twin(module: nn.Module, **replaced: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    # A shallow copy shares the dictionary of children: without its own, the original would lose its layer.
    vars(twin)["_modules"] = vars(module)["_modules"] | replaced
    return twin


def _check_marks(chat: Chat, known: frozenset[str]) -> None:
    """Refuse user text that would be read as the chat's own structure, or as media that are not there."""
    placed = chat.text.count(AUDIO_MARKS), chat.text.count(VIDEO_MARKS)
    own_words = chat.words.replace(AUDIO_MARKS, "").replace(VIDEO_MARKS, "") + chat.system
    marks = known.intersection(_MARK.findall(own_words))
    if marks or placed != (len(chat.audio), len(chat.video)):
        raise InvalidJob(
            "the text holds control marks of the model",
            "history" if chat.earlier and not _MARK.search(chat.user) else "text",
            "Leave out marks such as <|im_end|>",
            {"marks": sorted(marks)},
        )


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
