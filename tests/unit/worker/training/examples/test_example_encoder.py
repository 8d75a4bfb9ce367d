"""Examples are encoded as a worker encodes the request, and the VAE its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaUnreadable
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.tasks import StyleTransfer
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.media.video import decode_video
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.video import thinker_frames
from omnifleet_worker.training.batches import EncodedDataset, Row
from omnifleet_worker.training.examples.data import read_examples
from omnifleet_worker.training.examples.example_encoder import ExampleEncoder, fingerprint
from support.data import media_files
from torch import Tensor

CPU = torch.device("cpu")
Encode = Callable[[dict[str, Any]], Row]


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> AudioOmniPipeline:
    return AudioOmniPipeline.from_pretrained(checkpoint)


@pytest.fixture
def encode(recipe_folder: Path, checkpoint: Path, tmp_path: Path) -> Encode:
    """Encode one line, whose files are the recipe's."""
    encoder = ExampleEncoder(checkpoint, recipe_folder / "cache", CPU, torch.float32)

    def encode(line: dict[str, Any]) -> Row:
        path = recipe_folder / f"{tmp_path.name}.jsonl"
        path.write_text(json.dumps(line))
        (example,) = read_examples([path])
        return EncodedDataset([encoder.encode(example)], encoder.cache)[0]

    return encode


def samples(path: Path) -> NDArray[np.float32]:
    read: NDArray[np.float32] = soundfile.read(path, dtype="float32")[0]
    return read


def assert_row(row: Row, context: list[Tensor], global_tokens: list[Tensor], latents: Tensor | None = None) -> None:
    assert torch.equal(row.context, torch.cat(context))
    assert torch.equal(row.global_tokens, torch.cat(global_tokens))
    if latents is not None:
        assert torch.equal(row.latents, latents)


def test_an_edit_hears_its_source_and_reads_the_sentence(
    encode: Encode, pipeline: AudioOmniPipeline, recipe_folder: Path
) -> None:
    files = {"audio": "mix.wav", "target": "tone.wav"}
    row = encode({"task": "style", "replaces": "noise", "text": "a tone", **files})

    said = StyleTransfer(audio=Media(uri="file:///x"), source="noise", target="a tone")
    tone = samples(recipe_folder / "tone.wav")
    assert_row(
        row,
        [pipeline.encode_prompt(Prompts(pipeline.prompts).edit(said)), pipeline.encode_speech(None)],
        [pipeline.encode_sync(None), pipeline.encode_audio(samples(recipe_folder / "mix.wav"))],
        pipeline.encode_latents(np.stack([tone, tone])),
    )


def test_speech_goes_on_where_its_voice_ends(encode: Encode, pipeline: AudioOmniPipeline, recipe_folder: Path) -> None:
    files = {"voice": "tone.wav", "target": "noise.wav"}
    row = encode({"task": "vc", "text": "beep", "transcript": "hm", **files})

    tone, noise = (samples(recipe_folder / f"{name}.wav") for name in ("tone", "noise"))
    joined = np.concatenate([tone, noise])
    assert_row(
        row,
        [pipeline.encode_prompt(Prompts(pipeline.prompts).speech()), pipeline.encode_speech("hm. beep")],
        [pipeline.encode_sync(None), pipeline.encode_audio(tone)],
        pipeline.encode_latents(np.stack([joined, joined])),
    )


def test_a_video_is_seen_by_thinker_and_synchformer(
    encode: Encode, pipeline: AudioOmniPipeline, recipe_folder: Path
) -> None:
    film = media_files.video()
    (recipe_folder / "film.mp4").write_bytes(film)
    row = encode({"task": "v2a", "text": "steps", "video": "film.mp4", "target": "noise.wav"})

    frames = decode_video(film, frames_per_second=25, max_seconds=10, size=(224, 224)).frames
    chat = Prompts(pipeline.prompts).video_to_audio("v2a", "steps", thinker_frames(frames))
    assert_row(
        row,
        [pipeline.encode_prompt(chat), pipeline.encode_speech(None)],
        [pipeline.encode_sync(pipeline.encode_video(frames)), pipeline.encode_audio(None)],
    )


def test_a_file_that_cannot_be_decoded_is_named_with_its_line(encode: Encode, recipe_folder: Path) -> None:
    flac = media_files.encode("flac", media_files.tone(1.0, 44_100), 44_100)
    (recipe_folder / "cut.flac").write_bytes(media_files.cut(flac, 0.5))

    with pytest.raises(MediaUnreadable) as raised:
        encode({"task": "t2a", "text": "rain", "target": "cut.flac"})

    assert (raised.value.field or "").endswith(".jsonl:1: target")


def test_another_checkpoint_has_another_fingerprint(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/model.safetensors").write_bytes(b"other weights")

    assert fingerprint(checkpoint) == fingerprint(checkpoint) != fingerprint(tmp_path)
