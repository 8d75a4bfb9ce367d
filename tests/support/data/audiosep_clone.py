"""A stand-in for a clone of AudioSep: its files in their places, its calls and their shapes, and tiny random weights.

It looks for its text encoder's weights from the folder that it runs in, prints what it does, needs a thousand samples
for its spectra, and passes over weights that its checkpoint lacks, all as the published code does.
"""

from __future__ import annotations

from pathlib import Path

import torch

WEIGHTS = "checkpoint/audiosep_base_4M_steps.ckpt"
CLAP = "checkpoint/music_speech_audioset_epoch_15_esc_89.98.pt"
CONFIG = "config/audiosep_base.yaml"
_BINS = 1025
_PIPELINE = """
import os
import torch
from models.separation import ResUNet30

STEP_SECONDS = float(os.environ.get("SCRIPTED_STEP_SECONDS", "0"))


class Encoder:
    def __init__(self):
        self.letters = torch.load("CLAP")

    def get_query_embed(self, modality, audio=None, text=None, use_text_ratio=0.5, device=None):
        assert modality == "text" and len(text) == 1
        return torch.nn.functional.normalize(self.letters[list(text[0].encode())].sum(0, keepdim=True))


class AudioSep:
    def __init__(self, weights):
        self.query_encoder = Encoder()
        self.ss_model = ResUNet30(STEP_SECONDS)
        own = {name[9:]: one for name, one in weights.items() if name.startswith("ss_model.")}
        self.ss_model.load_state_dict(own, strict=False)


def build_audiosep(config_yaml, checkpoint_path, device):
    with open(config_yaml) as file:
        assert "ResUNet30" in file.read()
    model = AudioSep(torch.load(checkpoint_path)["state_dict"])
    print(f"Load AudioSep model from [{checkpoint_path}]")
    return model
"""
_SEPARATION = """
import os
import time
import torch


class ResUNet30(torch.nn.Module):
    def __init__(self, step_seconds):
        super().__init__()
        self.film = torch.nn.Linear(512, BINS)
        self.window = torch.nn.Parameter(torch.hann_window(2048), requires_grad=False)
        self.step_seconds = step_seconds

    def forward(self, input_dict):
        mixture, condition = input_dict["mixture"], input_dict["condition"]
        assert mixture.shape[:2] == (1, 1) and condition.shape == (1, 512), (mixture.shape, condition.shape)
        if self.step_seconds:
            time.sleep(self.step_seconds)
        loudest = mixture.abs().max()
        if loudest > 50:
            os._exit(9)
        if loudest > 40:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if loudest > 30:
            raise ValueError("no such row")
        about = {"n_fft": 2048, "hop_length": 320, "window": self.window}
        spectrum = torch.stft(mixture[0, 0], center=True, pad_mode="reflect", return_complex=True, **about)
        mask = torch.sigmoid(self.film(condition))[0, :, None]
        return {"waveform": torch.istft(spectrum * mask, length=mixture.shape[2], **about)[None, None]}
"""


def write_clone(folder: Path) -> Path:
    """Write it, and give the folder back.

    What is louder than 30 is no sound to it: above, it fails; above 40, it has no memory; above 50, its process ends.
    """
    for name in ("models", "config", "checkpoint"):
        (folder / name).mkdir(parents=True)
    (folder / "pipeline.py").write_text(_PIPELINE.replace("CLAP", CLAP))
    (folder / "models" / "separation.py").write_text(_SEPARATION.replace("BINS", str(_BINS)))
    (folder / CONFIG).write_text("model:\n    model_type: ResUNet30\n    condition_size: 512\n")
    random = torch.Generator().manual_seed(0)
    torch.save(torch.randn(256, 512, generator=random), folder / CLAP)
    film = {"weight": 40 * torch.randn(_BINS, 512, generator=random), "bias": torch.zeros(_BINS)}
    torch.save({"state_dict": {f"ss_model.film.{name}": one for name, one in film.items()}}, folder / WEIGHTS)
    return folder
