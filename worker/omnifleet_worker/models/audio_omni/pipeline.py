"""Audio-Omni as one object: its components, and the stages from a request to conditioning and to audio.

The checkpoint is a folder in diffusers' layout: model_index.json, a subfolder a component with safetensors,
and the checkpoint's own data beside them: prompts.json, vocab.txt, card.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from omnifleet_shared.errors import CheckpointInvalid, TaskNotSupported
from torch import Tensor
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from omnifleet_worker.models import folder as checkpoint_folder
from omnifleet_worker.models.audio_omni.adapters.low_rank import AppliedAdapter
from omnifleet_worker.models.audio_omni.autoencoder import AudioOmniAutoencoder
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.components import ALWAYS_FLOAT32, CONFIGS, OPTIONAL
from omnifleet_worker.models.audio_omni.conditioners import AudioPromptEncoder, OmniProjection, SyncEncoder
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES, normalise_peak
from omnifleet_worker.models.audio_omni.speech_encoder import SpeechEncoder
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.audio_omni.synchformer import Synchformer
from omnifleet_worker.models.audio_omni.thinker.thinker import Thinker
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer, CrossAttentionCache
from omnifleet_worker.models.audio_omni.video import synchformer_segments

COMPONENTS: dict[str, Any] = {
    "transformer": AudioOmniTransformer,
    "vae": AudioOmniAutoencoder,
    "thinker": Qwen2_5OmniThinkerForConditionalGeneration,
    "processor": Qwen2_5OmniProcessor,
    "omni_projection": OmniProjection,
    "speech_encoder": SpeechEncoder,
    "audio_encoder": AudioPromptEncoder,
    "sync_encoder": SyncEncoder,
    "synchformer": Synchformer,
}
"""Class of each component."""


@dataclass(frozen=True)
class Conditioning:
    """What a request is conditioned on, computed once and used at every diffusion step.

    Attributes:
        context: keys and values of [omni tokens, speech tokens] for every block's cross-attention.
        global_embeds: [364, width], sync then audio prompt.
    """

    context: CrossAttentionCache
    global_embeds: Tensor


class AudioOmniPipeline:
    """The components of one checkpoint, frozen, on one device.

    Args:
        transformer: the DiT.
        vae: decodes latents to audio.
        thinker: Qwen2.5-Omni's thinker.
        processor: of the thinker.
        omni_projection: thinker's hidden states to context tokens.
        speech_encoder: text to be spoken to context tokens.
        audio_encoder: audio prompt to global tokens.
        sync_encoder: video-sync features to global tokens.
        prompts: the sentences the weights were trained on, by kind: "system", "edit", "transcribe".
        vocab: tokens of the speech text, line number = id.
        card: what the checkpoint says of itself: name, revision, licence, languages, tasks.
        synchformer: video to sync features; without it there is no sound for videos.

    Raises:
        CheckpointInvalid: the vocabulary has more tokens than the speech encoder has embeddings.
    """

    def __init__(
        self,
        *,
        transformer: AudioOmniTransformer,
        vae: AudioOmniAutoencoder,
        thinker: Qwen2_5OmniThinkerForConditionalGeneration,
        processor: Qwen2_5OmniProcessor,
        omni_projection: OmniProjection,
        speech_encoder: SpeechEncoder,
        audio_encoder: AudioPromptEncoder,
        sync_encoder: SyncEncoder,
        prompts: Mapping[str, Any],
        vocab: Sequence[str],
        card: Mapping[str, Any],
        synchformer: Synchformer | None = None,
    ) -> None:
        self.transformer = transformer
        self.vae = vae
        self.thinker = thinker
        self.processor = processor
        self.omni_projection = omni_projection
        self.speech_encoder = speech_encoder
        self.audio_encoder = audio_encoder
        self.sync_encoder = sync_encoder
        self.synchformer = synchformer
        self.prompts = dict(prompts)
        self.vocab = list(vocab)
        self.card = dict(card)
        self._check_vocab()
        self._freeze()
        self.chatter = Thinker(thinker, processor)
        self.speech_tokenizer = SpeechTokenizer(self.vocab)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Self:
        """Load a checkpoint folder; weights are memory-mapped and never pickled.

        Args:
            folder: a local folder as `save_pretrained` writes it.
            device: where to put the weights.
            dtype: of the transformer and the thinker; everything else is float32.

        Raises:
            CheckpointInvalid: the folder is missing, incomplete or damaged; the error names the file.
        """
        root = Path(folder)
        names = checkpoint_folder.list_components(root, cls.__name__, CONFIGS, OPTIONAL)
        parts = {
            name: checkpoint_folder.load_component(root / name, COMPONENTS[name], cls._dtype_of(name, dtype))
            for name in names
        }
        return cls(**parts, **checkpoint_folder.read_data(root)).to(device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint folder that `from_pretrained` reads, each component in its present dtype."""
        root = Path(folder)
        kinds = {name: kind for name, kind in COMPONENTS.items() if getattr(self, name) is not None}
        for name in kinds:
            getattr(self, name).save_pretrained(root / name)
        checkpoint_folder.write_index(root, type(self).__name__, kinds)
        checkpoint_folder.write_data(root, prompts=self.prompts, vocab=self.vocab, card=self.card)

    def to(self, device: str | torch.device) -> Self:
        """Move every component to the device, in place."""
        for module in self._modules:
            module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the components are."""
        return self.transformer.device

    @property
    def global_tokens(self) -> int:
        """How many global tokens a request has: 364, the sync's before the audio prompt's."""
        return int(self.sync_encoder.config.tokens + self.audio_encoder.config.tokens)

    @property
    def context_tokens(self) -> int:
        """The most context tokens that a request can have: 2,304, the prompt's before the speech's."""
        return int(self.omni_projection.config.max_tokens + self.speech_encoder.config.tokens)

    @torch.inference_mode()
    def encode_prompt(self, chat: Chat) -> Tensor:
        """Context tokens [n, 768] of what is asked for; n is at most 2,048. Raises what `Thinker.encode` raises."""
        return self.omni_projection(self.chatter.encode(chat))

    @torch.inference_mode()
    def encode_speech(self, text: str | None) -> Tensor:
        """Context tokens [256, 768] of what is to be said; None where nothing is."""
        return self.speech_encoder(None if text is None else self.speech_tokenizer.encode(text))

    @torch.inference_mode()
    def encode_audio(self, wave: np.ndarray | Tensor | None) -> Tensor:
        """Global tokens [236, 768] of a mono 44.1 kHz wave [samples], its first 10 s; None for no audio prompt."""
        return self.audio_encoder(None if wave is None else torch.as_tensor(wave))

    @torch.inference_mode()
    def encode_video(self, frames: np.ndarray) -> Tensor:
        """Synchformer's features [240, 768] of a video's first 10 s, uint8 [T, 224, 224, 3] at 25 frames a second.

        Raises:
            TaskNotSupported: the checkpoint has no synchformer.
        """
        if self.synchformer is None:
            remedy = "Convert the checkpoint again, with synchformer_state_dict.pth"
            raise TaskNotSupported("this checkpoint cannot see when things move", "video", remedy)
        return self.synchformer(synchformer_segments(torch.from_numpy(frames).to(self.device))[None])[0]

    @torch.inference_mode()
    def encode_sync(self, features: np.ndarray | Tensor | None) -> Tensor:
        """Global tokens [128, 768] of Synchformer's features [240, 768]; None for no video."""
        return self.sync_encoder(None if features is None else torch.as_tensor(features))

    @torch.inference_mode()
    def encode_conditioning(
        self, prompt: Tensor, speech: Tensor, audio: Tensor, sync: Tensor, adapter: AppliedAdapter | None = None
    ) -> Conditioning:
        """Bring the four encodings of one request into the form that the transformer takes at each step.

        With an adapter the conditioning is that adapter's own; the encodings are the same for all of them.
        """
        return Conditioning(
            context=self.transformer.encode_context(torch.cat([prompt, speech]), adapter),
            global_embeds=self.transformer.encode_global(torch.cat([sync, audio])),
        )

    @torch.inference_mode()
    def encode_latents(self, audio: np.ndarray | Tensor) -> Tensor:
        """Latents [64, 236] of 44.1 kHz audio [2, samples], silence after its end: the mean that the VAE gives."""
        clip = torch.as_tensor(audio, dtype=torch.float32, device=self.vae.device)[:, :CLIP_SAMPLES]
        clip = torch.nn.functional.pad(clip, (0, CLIP_SAMPLES - clip.shape[1]))
        mean, _ = self.vae.encoder(clip[None]).chunk(2, dim=1)
        return mean[0]

    @torch.inference_mode()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode latents [B, 64, 236] to audio [B, 2, 483328] float32, each clip scaled to a peak of 1."""
        return normalise_peak(self.vae.decoder(latents.to(self.vae.device, torch.float32)))

    @property
    def _modules(self) -> list[Any]:
        parts = [getattr(self, name) for name in COMPONENTS if name != "processor"]
        return [part for part in parts if part is not None]

    @staticmethod
    def _dtype_of(name: str, chosen: torch.dtype) -> torch.dtype:
        return chosen if name in ALWAYS_FLOAT32 else torch.float32

    def _check_vocab(self) -> None:
        # Checked here, since an id beyond the embedding would take the whole CUDA context down later.
        known = self.speech_encoder.config.embeddings - 1
        if len(self.vocab) > known:
            raise CheckpointInvalid(
                f"vocab.txt has {len(self.vocab)} tokens, the speech encoder knows {known}", field="vocab.txt"
            )

    def _freeze(self) -> None:
        for module in self._modules:
            module.eval().requires_grad_(False)
