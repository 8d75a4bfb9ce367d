"""The published checkpoint as the folder that `AudioOmniPipeline.from_pretrained` reads.

A component is written under a temporary name, recorded, and renamed; model_index.json comes last of all. So a
folder that was left half done neither looks complete nor has to be begun again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting
from omnifleet_shared.schema.base import Record
from omnifleet_shared.schema.model_card import AUDIO_OMNI
from pydantic import ValidationError
from rich.progress import Progress
from safetensors import SafetensorError
from torch import nn
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerConfig

from ..models import folder as checkpoint_folder
from ..models.audio_omni.pipeline import COMPONENTS, AudioOmniPipeline
from .manifest import Manifest, read_manifest, record_files, size_faults, write_manifest
from .published.code import read_prompts, read_vocab
from .published.component_files import SHARD_BYTES, Component, write_component
from .published.files import PublishedFiles
from .published.processor_files import load_processor
from .published.state_dict import load_published, place, published_thinker_config, read_state_dict
from .published.synchformer import load_published_synchformer

UNFINISHED = ".conversion"
"""Folder inside the checkpoint's that holds what is not complete yet; it is gone at the end."""

CARD_FIELDS = {"name", "licence", "commercial_use", "parts", "languages"}
"""What the card of a converted checkpoint has besides its revision."""
_ROOM_FOR_SMALL_FILES = 64 * 2**20


class Part(Record):
    """A component that is complete, and what it was made from."""

    revision: str
    files: Manifest


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One conversion; `run` may be called again after whatever ended it, in the same process or another.

    Attributes:
        files: what is converted.
        out: folder of the checkpoint, made if need be.
        dtype: of the transformer and the thinker as stored; None keeps what is published.
        progress: shows how far it is.
        thinker_config: of a thinker other than Qwen2.5-Omni-3B's.
        shard_bytes: largest file of weights.
    """

    files: PublishedFiles
    out: Path
    dtype: torch.dtype | None = None
    progress: Progress
    thinker_config: Qwen2_5OmniThinkerConfig | None = None
    shard_bytes: int = SHARD_BYTES

    def run(self) -> Manifest:
        """Convert what is not converted yet.

        Returns:
            The manifest of the checkpoint.

        Raises:
            CheckpointInvalid: an input is not as published, or the folder cannot be written.
            InvalidSetting: the folder holds another checkpoint, or its disk too little room.
        """
        components, prompts, vocab, processor = self._read_inputs()
        revision = self.files.revision(str(self.dtype), self.progress)
        if (finished := self._finished(revision)) is not None:
            return finished
        with self._typed_write_errors():
            self._discard_half_written()
            self._check_room(components, revision)
            (self.out / checkpoint_folder.INDEX).unlink(missing_ok=True)
            manifest = self._write_components(components, revision)
            manifest |= self._write_processor(processor)
            card = AUDIO_OMNI.model_dump(mode="json", include=CARD_FIELDS)
            checkpoint_folder.write_data(self.out, prompts=prompts, vocab=vocab, card=card | {"revision": revision})
            return self._finish(manifest)

    @cached_property
    def _unfinished(self) -> Path:
        return self.out / UNFINISHED

    def _read_inputs(self) -> tuple[list[Component], dict[str, Any], list[str], Qwen2_5OmniProcessor]:
        """Everything that can be wrong with the inputs comes out here, before anything is written."""
        thinker_config = self.thinker_config or published_thinker_config()
        prompts = read_prompts(self.files.prompts)
        processor = load_processor(self.files.processor, thinker_config)
        models = load_published(self.files.state_dict, self.files.config, thinker_config)
        vocab = read_vocab(self.files.vocab, len(models["speech_encoder"].get_parameter("embedding.weight")) - 1)
        components = [self._component(name, model) for name, model in models.items()]
        return [*components, self._synchformer()], prompts, vocab, processor

    def _component(self, name: str, model: nn.Module) -> Component:
        def tensors() -> Any:
            return place(read_state_dict(self.files.state_dict), COMPONENTS)[name]

        return Component(name, _on_meta(model), tensors, self.dtype)

    def _synchformer(self) -> Component:
        def tensors() -> Any:
            return load_published_synchformer(self.files.synchformer).state_dict()

        return Component("synchformer", _on_meta(load_published_synchformer(self.files.synchformer)), tensors, None)

    def _finished(self, revision: str) -> Manifest | None:
        """The manifest, where the folder holds this checkpoint already and whole."""
        if not (self.out / checkpoint_folder.INDEX).is_file():
            return None
        card = self.out / checkpoint_folder.CARD
        found = checkpoint_folder.read_json(card).get("revision") if card.is_file() else None
        if found != revision:
            problem = f"{self.out} holds another checkpoint, of revision {found}"
            raise InvalidSetting(problem, "OUT", "Name a new folder")
        manifest = read_manifest(self.out)
        if manifest is None or size_faults(self.out, manifest):
            return None
        shutil.rmtree(self._unfinished, ignore_errors=True)
        return manifest

    def _discard_half_written(self) -> None:
        for folder in self._unfinished.glob("*/"):
            shutil.rmtree(folder)

    def _check_room(self, components: list[Component], revision: str) -> None:
        missing = [component for component in components if self._written(component.name, revision) is None]
        needed = sum(component.bytes for component in missing) + _ROOM_FOR_SMALL_FILES
        free = shutil.disk_usage(self.out).free
        if free < needed:
            problem = f"{self.out} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are still to be written"
            raise InvalidSetting(problem, "OUT", "Make room, or name a folder on another disk")

    @contextmanager
    def _typed_write_errors(self) -> Iterator[None]:
        try:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            yield
        except (OSError, SafetensorError) as error:
            remedy = "Make room, then run the same command again: it goes on where it stopped"
            raise CheckpointInvalid(f"{self.out} cannot be written: {error}", "OUT", remedy) from error

    def _write_components(self, components: list[Component], revision: str) -> Manifest:
        task = self.progress.add_task("converting", total=sum(component.bytes for component in components))
        manifest: Manifest = {}
        for component in components:
            part = self._written(component.name, revision)
            if part is None:
                part = self._write(component, revision, task)
            else:
                self.progress.advance(task, component.bytes)
            manifest |= part
        return manifest

    def _write(self, component: Component, revision: str, task: Any) -> Manifest:
        self.progress.update(task, description=f"converting {component.name}")
        folder = self._begin(component.name)
        write_component(component, folder, lambda written: self.progress.advance(task, written), self.shard_bytes)
        files = self._put_in_place(component.name)
        record = Part(revision=revision, files=files)
        self._part(component.name).write_text(record.model_dump_json(), encoding="utf-8")
        return files

    def _write_processor(self, processor: Qwen2_5OmniProcessor) -> Manifest:
        processor.save_pretrained(self._begin("processor"))
        return self._put_in_place("processor")

    def _begin(self, name: str) -> Path:
        # Without its record first: whatever ends this run, no record may speak of files that are being replaced.
        self._part(name).unlink(missing_ok=True)
        return self._unfinished / name

    def _put_in_place(self, name: str) -> Manifest:
        shutil.rmtree(self.out / name, ignore_errors=True)
        (self._unfinished / name).rename(self.out / name)
        written = (path for path in (self.out / name).rglob("*") if path.is_file())
        return record_files(self.out, written, self.progress)

    def _part(self, name: str) -> Path:
        return self._unfinished / f"{name}.json"

    def _written(self, name: str, revision: str) -> Manifest | None:
        """The files of a component that an earlier run completed from the same inputs."""
        try:
            part = Part.model_validate_json(self._part(name).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return part.files if part.revision == revision and not size_faults(self.out, part.files) else None

    def _finish(self, manifest: Manifest) -> Manifest:
        names = (checkpoint_folder.PROMPTS, checkpoint_folder.VOCAB, checkpoint_folder.CARD)
        manifest |= record_files(self.out, (self.out / name for name in names))
        checkpoint_folder.write_index(self._unfinished, AudioOmniPipeline.__name__, COMPONENTS)
        index = self._unfinished / checkpoint_folder.INDEX
        manifest |= record_files(self._unfinished, [index])
        write_manifest(self.out, manifest)
        index.rename(self.out / checkpoint_folder.INDEX)
        shutil.rmtree(self._unfinished)
        return manifest


def _on_meta(model: nn.Module) -> nn.Module:
    return model.to("meta")
