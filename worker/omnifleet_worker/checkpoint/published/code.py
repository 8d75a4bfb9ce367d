"""Vocabulary and prompts from a clone of the published code, which is read as text and never run.

docs/model.md, "Files of a published checkpoint", says what they are; the names of the constants are told apart by their
words, since it does not list them.
"""

from __future__ import annotations

import ast
import logging
import re
import string
from collections.abc import Callable
from pathlib import Path

from omnifleet_shared.errors import CheckpointInvalid

logger = logging.getLogger(__name__)

VOCAB = Path("audio_omni/data/vocab.txt")
PROMPTS = Path("audio_omni/prompts.py")

_SYSTEM_PROMPTS = ("EDITING", "T2A", "T2M", "TTS", "UNDERSTANDING", "V2A", "V2M")
_EDIT_FIELDS = {"Add": {"desc"}, "Remove": {"desc"}, "Extract": {"desc"}, "Style": {"source", "target"}}
_TRANSCRIPTION = {"TRANSCRIBE", "TRANSCRIPTION", "ASR"}
_OWN_TRANSCRIPTION = {
    "system": "You write down what people say.",
    "user": "Write down every word that is said in this recording. Answer with these words alone.",
}
_REMEDY = "Give the clone of the published code, at the revision that belongs to the weights"

Sentences = dict[str, str]
_Literal = str | dict[str, "_Literal"]


def read_vocab(path: Path, tokens: int) -> list[str]:
    """The tokens of speech text; line number = id.

    Args:
        path: `vocab.txt`, with the line ends of any system.
        tokens: how many the speech encoder has embeddings for.

    Raises:
        CheckpointInvalid: the file cannot be read, or holds another vocabulary.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}", path.name, _REMEDY) from error
    # git gives a clone on Windows other line ends, and no token would be found with them. Tokens may be white space.
    vocab = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(vocab) != tokens or vocab[0] != " ":
        problem = f"{path} holds {len(vocab)} tokens, first {vocab[0]!r}; the weights know {tokens}, first ' '"
        raise CheckpointInvalid(problem, path.name, _REMEDY)
    return vocab


def read_prompts(path: Path) -> dict[str, Sentences]:
    """The sentences that the weights were trained on, by kind: "system", "edit" and "transcribe".

    The thinker is frozen, so nothing was trained on the sentences for transcribing: where the published code has
    none among its constants, this project's own take their place, and a warning says so.

    Args:
        path: `prompts.py`; constants that are assigned at its top level are read, everything else is passed over.

    Raises:
        CheckpointInvalid: it is no Python, or a sentence is not among its constants, or is there twice.
    """
    constants = _flatten(_read_constants(path))
    return {
        "system": {name: _find_system(constants, path, name) for name in _SYSTEM_PROMPTS},
        "edit": {name: _find_edit(constants, path, name) for name in _EDIT_FIELDS},
        "transcribe": _find_transcription(constants),
    }


def _find_system(constants: Sentences, path: Path, name: str) -> str:
    return _find(constants, path, f"SYSTEM_{name}", lambda words: {"SYSTEM", name} <= words)


def _find_edit(constants: Sentences, path: Path, name: str) -> str:
    wanted = f"EDIT_{name.upper()}"
    sentence = _find(constants, path, wanted, lambda words: name.upper() in words and "SYSTEM" not in words)
    if _fields(sentence) != _EDIT_FIELDS[name]:
        fields = " and ".join(f"{{{field}}}" for field in sorted(_EDIT_FIELDS[name]))
        raise CheckpointInvalid(f"{path}: {wanted} has not {fields} to fill in: {sentence!r}", wanted, _REMEDY)
    return sentence


def _find_transcription(constants: Sentences) -> Sentences:
    about = {name: sentence for name, sentence in constants.items() if _TRANSCRIPTION & _words(name)}
    system = [sentence for name, sentence in about.items() if "SYSTEM" in _words(name)]
    user = [sentence for name, sentence in about.items() if "SYSTEM" not in _words(name)]
    if len(system) == len(user) == 1:
        return {"system": system[0], "user": user[0]}
    logger.warning("prompts.py has no sentences for transcribing: this project's own are used")
    return dict(_OWN_TRANSCRIPTION)


def _find(constants: Sentences, path: Path, wanted: str, fits: Callable[[set[str]], bool]) -> str:
    """The one sentence whose name fits; of several names the plainest."""
    names = [name for name in constants if fits(_words(name))]
    fewest = min((len(_words(name)) for name in names), default=0)
    sentences = {constants[name] for name in names if len(_words(name)) == fewest}
    if len(sentences) == 1:
        return sentences.pop()
    fault = f"has several constants for {wanted}" if sentences else f"has no constant for {wanted}"
    among = ", ".join(sorted(names or constants)) or "none"
    raise CheckpointInvalid(f"{path} {fault}; constants found: {among}", wanted, _REMEDY)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[A-Z0-9]+", name.upper()))


def _fields(sentence: str) -> set[str] | None:
    try:
        return {field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None}
    except ValueError:  # a lone brace
        return None


def _read_constants(path: Path) -> dict[str, _Literal]:
    try:
        module = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}", path.name, _REMEDY) from error
    constants: dict[str, _Literal] = {}
    for statement in module.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            value = _literal(statement.value, constants)
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            constants |= {name: value for name in names if value is not None}
    return constants


def _literal(node: ast.expr, known: dict[str, _Literal]) -> _Literal | None:
    """A string, a dict of them, a sum of strings or an earlier constant; None for what would have to be computed."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return known.get(name)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            start, end = _literal(left, known), _literal(right, known)
            return start + end if isinstance(start, str) and isinstance(end, str) else None
        case ast.Dict(keys=keys, values=values):
            pairs = zip(
                (key and _literal(key, known) for key in keys), (_literal(v, known) for v in values), strict=True
            )
            return {key: value for key, value in pairs if isinstance(key, str) and value is not None}
        case _:
            return None


def _flatten(constants: dict[str, _Literal], prefix: str = "") -> Sentences:
    """`{"A": {"b": "…"}}` as `{"A_b": "…"}`."""
    sentences: Sentences = {}
    for name, value in constants.items():
        sentences |= {prefix + name: value} if isinstance(value, str) else _flatten(value, f"{prefix}{name}_")
    return sentences
