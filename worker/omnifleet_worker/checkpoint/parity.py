"""A converted checkpoint beside numbers that the published implementation computed from the same weights.

The numbers are safetensors files as docs/model.md describes them in "The parity files": inputs are drawn by name, so
that the files hold outputs alone. The checkpoint is loaded as float32, whatever it is stored in.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omnifleet_shared.errors import InvalidSetting
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from ..models.audio_omni.pipeline import AudioOmniPipeline
from ..models.audio_omni.sampling import euler_step, euler_times, to_int16
from ..models.audio_omni.transformer import Guidance

EXACT, VAE_EXACT = 1e-5, 3e-4
"""Largest errors of float32 weights, relative to the largest value of a tensor; the VAE magnifies rounding."""
ROUNDED = 5e-2
"""Largest error of weights that are stored as bfloat16, which rounds each by up to 0.4 %; tiny ones are 7e-3 off."""
COUNTS = 8.0
"""Largest difference of 16-bit samples."""
COMPONENTS = {"timestep": "transformer", "velocity": "transformer", "latents": "transformer", "thinker": "thinker"}
"""Components that may be stored as bfloat16, by the first word of the numbers that they decide."""
_REMEDY = "Name a folder of units.safetensors, synchformer.safetensors or case_*.safetensors (docs/model.md)"

Tensors = dict[str, Tensor]
Outputs = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One published number, a tensor, and how far the checkpoint's own is from it."""

    name: str
    error: float
    """Largest difference, relative to the published tensor's largest value; of 16-bit samples in counts."""
    within: float
    """Largest error that passes."""

    @property
    def agrees(self) -> bool:
        """Whether it passes; what is no number does not."""
        return self.error <= self.within


@torch.inference_mode()
def compare_numbers(
    checkpoint: Path, numbers: Path, *, device: str = "cpu", within: float | None = None
) -> Iterator[Comparison]:
    """Compute every number of a folder with a checkpoint, and compare.

    Args:
        checkpoint: its folder.
        numbers: folder of the published numbers.
        device: to compute on; the allowed errors were measured on CPUs.
        within: largest relative error that passes, in place of this module's.

    Raises:
        InvalidSetting: the folder holds no numbers, some that nobody knows, or those of another kind of model.
        CheckpointInvalid: the checkpoint cannot be loaded.
    """
    files = {path.stem: _load(path) for path in sorted(numbers.glob("*.safetensors"))}
    if not files:
        raise InvalidSetting(f"{numbers} holds no published numbers", "--parity", _REMEDY)
    torch.backends.cudnn.allow_tf32 = False
    disable_progress_bar()
    disable_progress_bar()
    pipeline = AudioOmniPipeline.from_pretrained(checkpoint, device=device)
    rounded = {name for name in set(COMPONENTS.values()) if _is_rounded(checkpoint / name)}
    for file, published in files.items():
        outputs = _outputs(pipeline, file, published, numbers)
        for name, wanted in published.items():
            if name not in ("thinker.input_ids", "thinker.attention_mask"):
                found, allowed = _computed(outputs, name, numbers / file), _allowed(name, rounded, within)
                yield _compare(f"{file} {name}", found, wanted, allowed)


def draw(name: str, *shape: int) -> Tensor:
    """Draw standard normal numbers, float32, seeded by a name: the same on every machine."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def _outputs(pipeline: AudioOmniPipeline, file: str, published: Tensors, numbers: Path) -> Outputs:
    if file == "units":
        return _unit_outputs(pipeline, published, _read(numbers / "speech_tokens.json"))
    if file == "synchformer":
        return {"sync.features": lambda: _video_features(pipeline)}
    cases = _read(numbers / "cases.json") if file.startswith("case_") else {}
    if (case := cases.get(file.removeprefix("case_"))) is None:
        raise InvalidSetting(f"{numbers / file}.safetensors is not in cases.json", "--parity", _REMEDY)
    return _case_outputs(pipeline, file.removeprefix("case_"), case, published)


def _unit_outputs(pipeline: AudioOmniPipeline, published: Tensors, texts: list[dict[str, Any]]) -> Outputs:
    device = pipeline.device
    encode, decode = (cast(Callable[[Tensor], Tensor], part) for part in (pipeline.vae.encoder, pipeline.vae.decoder))
    wave = draw("vaewav", 1, 2, 16_384) * 0.1
    speech: Outputs = {f"speech.{n}": partial(pipeline.encode_speech, one["text"]) for n, one in enumerate(texts)}
    return speech | {
        "omni.57": lambda: pipeline.omni_projection(draw("omni57", 57, 2048).to(device)),
        "speech.none": lambda: pipeline.encode_speech(None),
        "mel.noise": lambda: pipeline.encode_audio(draw("wav", 441_000).to(device) * 0.1),
        "mel.silence": lambda: pipeline.encode_audio(None),
        "sync.video": lambda: pipeline.encode_sync(draw("sync", 1, 240, 768)[0].to(device)),
        "sync.none": lambda: pipeline.encode_sync(None),
        "timestep.0.73": lambda: pipeline.transformer.embed_timestep(torch.tensor([0.73], device=device)),
        "vae.decode": lambda: decode(draw("z", 1, 64, 16).to(device)),
        "vae.encode_mean_scale": lambda: encode(wave.to(device)),
        "thinker.penultimate": lambda: _hidden_states(pipeline, published),
    }


def _hidden_states(pipeline: AudioOmniPipeline, published: Tensors) -> Tensor:
    ids, mask = (published[f"thinker.{name}"].to(pipeline.device) for name in ("input_ids", "attention_mask"))
    answer = pipeline.thinker(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    hidden: Tensor = answer.hidden_states[-2].cpu()
    # Rows whose mask is 0 are nobody's.
    return torch.where(mask.cpu()[..., None] == 1, hidden, published["thinker.penultimate"])


def _video_features(pipeline: AudioOmniPipeline) -> Tensor:
    if pipeline.synchformer is None:
        raise InvalidSetting(
            "the checkpoint has no video encoder to compare", "--parity", "Leave synchformer.safetensors out"
        )
    features: Tensor = pipeline.synchformer(draw("sync_video", 1, 2, 16, 3, 224, 224).clamp(-1, 1).to(pipeline.device))
    return features


def _case_outputs(pipeline: AudioOmniPipeline, name: str, case: dict[str, Any], published: Tensors) -> Outputs:
    device, transformer = pipeline.device, pipeline.transformer
    conditioning = pipeline.encode_conditioning(
        pipeline.omni_projection(draw(f"{name}.hidden", case["tokens"], 2048).to(device)),
        pipeline.encode_speech(case["speech"]),
        pipeline.encode_audio(_voice().to(device) if case["wav"] else None),
        pipeline.encode_sync(None),
    )
    context, embeds = transformer.collate_context([conditioning.context]), conditioning.global_embeds[None]
    noise = draw(f"{name}.noise", 1, 64, 236).to(device)

    def velocity(latents: Tensor, time: Tensor, guidance: float) -> Tensor:
        moved: Tensor = transformer(latents, time.to(device), context, embeds, Guidance.of([guidance], device))
        return moved

    def latents() -> Tensor:
        steps = noise
        for time, time_next in euler_times(4).unfold(0, 2, 1).to(device):
            steps = euler_step(steps, velocity(steps, time[None], 7), time[None], time_next[None])
        return steps

    def audio() -> Tensor:
        return to_int16(pipeline.decode_latents(published["latents.steps4.cfg7"]))[0].cpu()

    return {
        "velocity.t0.73.cfg1": lambda: velocity(noise, torch.tensor([0.73]), 1),
        "velocity.t0.73.cfg7": lambda: velocity(noise, torch.tensor([0.73]), 7),
        "latents.steps4.cfg7": latents,
        "pcm.head": lambda: audio()[:, : published["pcm.head"].shape[1]],
        "pcm.len": lambda: torch.tensor(audio().shape),
    }


def _voice() -> Tensor:
    wave = 0.1 * draw("wav.voice", 441_000)
    wave[264_600:] = 0
    return wave


def _compare(name: str, found: Tensor, wanted: Tensor, allowed: float) -> Comparison:
    if found.numel() != wanted.numel():
        problem = f"{name} is {list(wanted.shape)}, and the checkpoint's own {list(found.shape)}"
        raise InvalidSetting(problem, "--parity", "Name numbers of this kind of model")
    error = (found.cpu().double().reshape(wanted.shape) - wanted.double()).abs().max().item()
    largest = 1.0 if wanted.dtype in (torch.int16, torch.int64) else wanted.double().abs().max().item()
    return Comparison(name=name, error=error / largest if largest else error, within=allowed)


def _allowed(name: str, rounded: set[str], within: float | None) -> float:
    kind = name.partition(".")[0]
    if kind == "pcm":
        return COUNTS if name == "pcm.head" else 0.0
    if within is not None:
        return within
    return ROUNDED if COMPONENTS.get(kind) in rounded else VAE_EXACT if kind == "vae" else EXACT


def _computed(outputs: Outputs, name: str, file: Path) -> Tensor:
    if name not in outputs:
        raise InvalidSetting(f"{file}.safetensors holds {name}, which nobody knows", "--parity", _REMEDY)
    return outputs[name]()


def _is_rounded(component: Path) -> bool:
    """Whether a component is stored in 16 bits, most of its tensors at least."""
    dtypes: list[str] = []
    for path in component.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            dtypes += [file.get_slice(key).get_dtype() for key in file.keys()]  # noqa: SIM118 (it is no mapping)
    return 2 * sum(dtype in ("BF16", "F16") for dtype in dtypes) > len(dtypes)


def _load(path: Path) -> Tensors:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InvalidSetting(f"{path} cannot be read: {error}", "--parity", _REMEDY) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidSetting(
            f"{path}, which says what was asked, cannot be read: {error}", "--parity", _REMEDY
        ) from error
