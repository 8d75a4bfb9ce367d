"""The checkpoint folder on disk: which files it consists of, reading and writing them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omnifleet_shared.errors import CheckpointInvalid
from safetensors import SafetensorError

INDEX = "model_index.json"
PROMPTS = "prompts.json"
VOCAB = "vocab.txt"
CARD = "card.json"

_REMEDY = "Convert or download the checkpoint again, and give the folder that holds model_index.json"


def list_components(root: Path, pipeline: str, configs: Mapping[str, str], optional: Collection[str]) -> list[str]:
    """Names of the components that the folder holds, once it is sure that it is this pipeline's and whole.

    Args:
        root: the folder.
        pipeline: class name of the pipeline.
        configs: of each of its components, the file that describes it.
        optional: names of those that need not be there.

    Raises:
        CheckpointInvalid: naming the first file that is missing, or the model that it is instead.
    """
    _require([root / name for name in (INDEX, PROMPTS, VOCAB, CARD)])
    index = read_json(root / INDEX)
    if index.get("_class_name") != pipeline:
        raise _invalid(root / INDEX, f"describes a {index.get('_class_name')}, not a {pipeline}")
    held = [name for name in configs if name in index or name not in optional]
    _require([root / name / configs[name] for name in held])
    return held


def load_component(folder: Path, kind: Any, dtype: torch.dtype) -> Any:
    """Load one component with its own `from_pretrained`, from local safetensors alone.

    Args:
        folder: of the component.
        kind: its class, of diffusers or transformers; a processor has no weights.
        dtype: of the weights.

    Raises:
        CheckpointInvalid: a file is missing or damaged, or tensors are missing or of another shape.
    """
    try:
        if not _has_weights(kind):
            return kind.from_pretrained(folder, local_files_only=True)
        component, loading = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _invalid(folder, f"cannot be loaded: {error}") from error
    # Both libraries only warn of these, and would go on with random weights.
    for problem in ("missing_keys", "mismatched_keys"):
        if loading[problem]:
            raise _invalid(folder, f"has {problem.replace('_', ' ')}: {sorted(map(str, loading[problem]))[0]}")
    return component


def read_data(root: Path) -> dict[str, Any]:
    """The checkpoint's `prompts`, `vocab` and `card`."""
    # Lines end at newlines alone: a token may be any other kind of white space.
    vocab = (root / VOCAB).read_bytes().decode().removesuffix("\n").split("\n")
    return {"prompts": read_json(root / PROMPTS), "vocab": vocab, "card": read_json(root / CARD)}


def write_data(root: Path, *, prompts: Mapping[str, Any], vocab: Sequence[str], card: Mapping[str, Any]) -> None:
    """Write what `read_data` reads."""
    write_json(root / PROMPTS, prompts)
    write_json(root / CARD, card)
    (root / VOCAB).write_bytes(("\n".join(vocab) + "\n").encode())


def write_index(root: Path, pipeline: str, components: Mapping[str, type]) -> None:
    """Write model_index.json as diffusers does: every component with its module and class."""
    places = {name: [kind.__module__, kind.__name__] for name, kind in components.items()}
    write_json(root / INDEX, {"_class_name": pipeline, "_diffusers_version": version("diffusers"), **places})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointInvalid: the file is no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise _invalid(path, f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _invalid(path, "is no JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object for people to read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _require(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise _invalid(path, "is missing")


def _has_weights(kind: type) -> bool:
    return issubclass(kind, torch.nn.Module)


def _invalid(path: Path, problem: str) -> CheckpointInvalid:
    return CheckpointInvalid(f"{path} {problem}", field=path.name, remedy=_REMEDY)
