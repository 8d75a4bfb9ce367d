"""What the model sees of a video: the pace, the number, the size and the scale of its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import TaskNotSupported
from omnifleet_worker.media.video import Video, decode_video
from omnifleet_worker.model_loader import describe
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.synchformer import Synchformer
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.models.audio_omni.video import synchformer_segments, thinker_frames
from PIL import Image
from support.data import media_files

SIDE = 224


def seen(film: bytes, seconds: float = 10) -> Video:
    return decode_video(film, frames_per_second=25, max_seconds=seconds, size=(SIDE, SIDE))


def counted(frames: int) -> np.ndarray:
    """Frames of one pixel that hold their own number."""
    return np.arange(frames, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)


def shown(segments: torch.Tensor) -> list[list[int]]:
    """The numbers in the segments of `counted` frames."""
    return ((segments[..., 0, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (640, 360), (1920, 1080)])
def test_frames_are_squashed_to_a_square(size: tuple[int, int]) -> None:
    video = seen(media_files.video(0.2, 25, size))

    assert video.frames.shape == (5, SIDE, SIDE, 3)
    assert [media_files.frame_number(frame) for frame in video.frames] == pytest.approx(range(5), abs=1)


def test_squashing_is_bilinear_and_antialiased() -> None:
    film = media_files.video(0.04, 25, (640, 360))
    whole = decode_video(film, frames_per_second=25, max_seconds=1).frames[0]

    squashed = seen(film).frames[0]

    chw = torch.from_numpy(whole).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(chw, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
    assert np.abs(squashed - expected.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_turned_before_they_are_squashed(rotation: media_files.Rotation) -> None:
    film = media_files.video(0.04, 25, (128, 64), rotation=rotation)
    upright = decode_video(film, frames_per_second=25, max_seconds=1).frames[0]

    squashed = seen(film).frames[0]

    expected = np.asarray(Image.fromarray(upright).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.array_equal(squashed, expected)


@pytest.mark.parametrize("fps", [12.5, 23.976, 25, 30, 50])
def test_any_frame_rate_is_seen_at_the_same_pace(fps: float) -> None:
    video = seen(media_files.video(1.2, fps))

    numbers = [media_files.frame_number(frame) for frame in video.frames]
    assert numbers == pytest.approx([int(k / 25 * fps + 0.01) for k in range(len(numbers))], abs=1)
    assert len(numbers) == pytest.approx(30, abs=1)


def test_the_thinker_sees_five_frames_a_second() -> None:
    assert thinker_frames(counted(250))[:, 0, 0, 0].tolist() == list(range(0, 250, 5))


def test_synchformer_sees_thirty_segments() -> None:
    segments = synchformer_segments(torch.from_numpy(counted(250)))

    assert segments.shape == (30, 16, 3, 1, 1)
    assert shown(segments) == [list(range(start, start + 16)) for start in range(0, 240, 8)]


@pytest.mark.parametrize("frames", [1, 5, 6, 100, 249])
def test_a_short_video_stands_still_at_its_end(frames: int) -> None:
    short = counted(frames)

    for_thinker = thinker_frames(short)[:, 0, 0, 0].tolist()
    for_synchformer = shown(synchformer_segments(torch.from_numpy(short)))

    last = (frames - 1) // 5 * 5
    assert for_thinker == [min(number, last) for number in range(0, 250, 5)]
    assert for_synchformer == [[min(k, frames - 1) for k in range(at, at + 16)] for at in range(0, 240, 8)]


def test_what_comes_after_ten_seconds_is_not_seen() -> None:
    longer = np.concatenate([counted(250), counted(250)])

    assert np.array_equal(thinker_frames(longer), thinker_frames(longer[:250]))
    assert torch.equal(
        synchformer_segments(torch.from_numpy(longer)), synchformer_segments(torch.from_numpy(longer[:250]))
    )


def test_pixels_are_scaled_to_one_around_zero() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)

    assert synchformer_segments(pixels)[0, 0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])


@torch.inference_mode()
def test_segments_do_not_touch_each_other() -> None:
    model = Synchformer(width=24, depth=1, heads=2, features=8).eval()
    segments = torch.randn(2, 4, 16, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)

    features = model(segments)

    assert features.shape == (2, 4 * 8, 8)
    torch.testing.assert_close(features[1:, 8:16], model(segments[1:, 1:2]), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pipeline() -> AudioOmniPipeline:
    return tiny_pipeline()


def test_a_video_becomes_features(pipeline: AudioOmniPipeline) -> None:
    moving = np.random.default_rng(0).integers(0, 256, (30, SIDE, SIDE, 3), dtype=np.uint8)

    features = pipeline.encode_video(moving)

    assert features.shape == (240, 768)
    assert bool(features.isfinite().all())
    # The video stands still from frame 30 on, so from the fourth segment on nothing changes any more.
    torch.testing.assert_close(features[5 * 8 : 6 * 8], features[-8:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features[:8], features[-8:], atol=1e-3)


def test_a_checkpoint_may_lack_synchformer(pipeline: AudioOmniPipeline, tmp_path: Path) -> None:
    blind = tiny_pipeline()
    blind.synchformer = None
    blind.save_pretrained(tmp_path)

    loaded = AudioOmniPipeline.from_pretrained(tmp_path)

    assert not (tmp_path / "synchformer").exists()
    assert set(describe(pipeline).card.tasks) - set(describe(loaded).card.tasks) == {"generate.v2a", "generate.v2m"}
    with pytest.raises(TaskNotSupported, match="synchformer_state_dict"):
        loaded.encode_video(np.zeros((1, SIDE, SIDE, 3), np.uint8))
