"""What a conversion starts from: the published files, and what identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from omnifleet_shared.errors import CheckpointInvalid
from rich.progress import Progress

from ..manifest import hash_file
from . import code as published_code
from . import processor_files
from .state_dict import read_config

CONFIG = "Audio-Omni.json"
STATE_DICT = "model.ckpt"
SYNCHFORMER = "synchformer_state_dict.pth"


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """Where each of them lies (docs/model.md, "Files of a published checkpoint")."""

    config: Path
    state_dict: Path
    synchformer: Path
    vocab: Path
    prompts: Path
    processor: Path
    """Folder."""

    @classmethod
    def find(cls, weights: Path, code: Path, qwen: Path | None = None) -> Self:
        """The files, all there.

        Args:
            weights: folder of the published weights.
            code: clone of the published code.
            qwen: folder of the thinker's processor; without one it is looked for in the Hugging Face cache.

        Raises:
            CheckpointInvalid: naming every file that is missing.
        """
        _check_there([weights / name for name in (CONFIG, STATE_DICT, SYNCHFORMER)], "--weights")
        _check_there([code / path for path in (published_code.VOCAB, published_code.PROMPTS)], "--code")
        return cls(
            config=weights / CONFIG,
            state_dict=weights / STATE_DICT,
            synchformer=weights / SYNCHFORMER,
            vocab=code / published_code.VOCAB,
            prompts=code / published_code.PROMPTS,
            processor=processor_files.find_processor(_thinker_name(weights / CONFIG), qwen),
        )

    def revision(self, precision: str, progress: Progress) -> str:
        """Sixteen hex digits that tell these files, converted to that precision, from any others; reads them all."""
        paths = self._contents()
        total = sum(path.stat().st_size for path in paths)
        task = progress.add_task("reading what there is", total=total)
        hashes = [f"{path.name} {hash_file(path, progress, task, total)}" for path in paths]
        return hashlib.sha256("\n".join([precision, *hashes]).encode()).hexdigest()[:16]

    def _contents(self) -> list[Path]:
        processor = (self.processor / name for name in processor_files.FILES)
        published = [self.config, self.state_dict, self.synchformer, self.vocab, self.prompts]
        return published + [path for path in processor if path.is_file()]


def _check_there(paths: list[Path], option: str) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        remedy = "Name the folder of the published weights with --weights, the clone of the published code with --code"
        raise CheckpointInvalid(f"{' and '.join(missing)} not found", option, remedy)


def _thinker_name(config: Path) -> str:
    try:
        conditioners = read_config(config)["model"]["conditioning"]["configs"]
        omni: dict[str, str] = next(entry["config"] for entry in conditioners if entry["id"] == "omni_prompt")
        return omni["qwen_omni_model_name"]
    except (KeyError, TypeError, StopIteration) as error:
        problem = f"{config} does not name the thinker of its omni prompt"
        raise CheckpointInvalid(problem, config.name, "Download the published configuration again") from error
