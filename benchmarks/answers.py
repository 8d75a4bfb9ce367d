"""Milliseconds a token of the thinker's answers, beside a loop of transformers' own layers and cache. All in one run.

On a GPU with the full-size model in bfloat16, elsewhere with a tiny one that shows that everything runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import machine
import numpy as np
import torch
import typer
from models import full_size_thinker, synchronise
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.thinker.attention import PackedSequences, attend_padded, attention_for
from omnifleet_worker.models.audio_omni.thinker.decoding import DecodeState
from omnifleet_worker.models.audio_omni.thinker.mel import LogMel
from omnifleet_worker.models.audio_omni.thinker.thinker import Thinker
from omnifleet_worker.models.audio_omni.tiny import tiny_processor, tiny_thinker
from rich.console import Console
from rich.table import Table
from transformers import DynamicCache

PROMPT_TOKENS = 40
SECONDS = 10
COMPARED_TOKENS = 24
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Report:
    """Everything that was measured, and where. Times are milliseconds."""

    date: str
    device: str
    model: str
    token: dict[str, dict[int, float]]
    """Of each way of decoding, by the number of answers."""
    first_token: dict[str, float]
    """From a prompt of 40 tokens to the first token of its answer."""
    first_tokens: dict[str, float]
    """The same for 16 prompts at once, to the last one's first token."""
    encode_prompt: dict[str, float]
    """Hidden states of a prompt of 40 tokens."""
    recording_wall: float
    """From a recording of 10 s to its embeddings, in the place of their chat."""
    recording_cpu: float
    """What the host works for that."""
    mel_cpu: dict[str, float]
    """Of a recording of 10 s."""
    capture_seconds: dict[str, float]
    """Before the first answer: with compilation, and without."""
    drawn_token: dict[int, float]
    """As `token`, compiled, with temperature 1."""
    attention_error: float
    """Largest difference between the device's attention and padded attention, relative to the largest value."""
    same_tokens: dict[str, bool]
    """Whether answers are what they are without graphs, and alone what they are together."""


class Baseline:
    """Transformers' layers and growing cache, one forward a token: what the engine did before.

    Args:
        thinker: whose model it runs.
    """

    def __init__(self, thinker: Thinker) -> None:
        self._thinker = thinker
        self._model = thinker._model

    def read(self, chats: Sequence[Chat]) -> tuple[DynamicCache, torch.Tensor]:
        """Cache and first tokens [n, 1] of chats that are equally long."""
        prompts = [self._thinker._reader.read(chat, 2.0, 0) for chat in chats]
        cache = DynamicCache(config=self._model.config.text_config)
        hidden = self._model.model.language_model(
            inputs_embeds=torch.stack([prompt.embeds for prompt in prompts]),
            position_ids=torch.stack([prompt.positions for prompt in prompts], 1),
            cache=cache,
            use_cache=True,
        ).last_hidden_state[:, -1:]
        return cache, self._model.lm_head(hidden).argmax(-1)

    def step(self, cache: DynamicCache, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens after those."""
        position = torch.full((3, len(tokens), 1), int(cache.get_seq_length()), device=tokens.device)
        hidden = self._model.model.language_model(
            input_ids=tokens, position_ids=position, cache=cache, use_cache=True
        ).last_hidden_state
        chosen = self._model.lm_head(hidden).argmax(-1)
        chosen.tolist()
        return chosen

    def token_ms(self, answers: int, tokens: int) -> float:
        """Of so many answers together."""
        cache, chosen = self.read([_chat(0)] * answers)
        chosen = self.step(cache, self.step(cache, chosen))
        start = time.perf_counter()
        for _ in range(tokens):
            chosen = self.step(cache, chosen)
        return (time.perf_counter() - start) / tokens * 1e3


@torch.inference_mode()
def measure(size: Literal["tiny", "full"], device: torch.device, sizes: Sequence[int], tokens: int) -> Report:
    """Measure the baseline, answers without compilation, and answers."""
    model = full_size_thinker(device) if size == "full" else tiny_thinker().to(device)
    thinker = _endless(Thinker(model, tiny_processor()))
    baseline, time_ms = Baseline(thinker), partial(_time_ms, device)
    prompt = thinker._reader.read(_chat(0), 2.0, 0)
    whole = partial(
        model.model.language_model, inputs_embeds=prompt.embeds[None], position_ids=prompt.positions[:, None]
    )
    token = {"transformers": {count: baseline.token_ms(count, min(tokens, 8)) for count in sizes}}
    first = {"transformers": time_ms(lambda: baseline.read([_chat(0)]))}
    many = {"transformers": time_ms(lambda: [baseline.read([_chat(number)]) for number in range(16)], rounds=1)}
    encode = {"transformers": time_ms(lambda: (thinker._reader.read(_chat(0), 2.0, 0), whole(use_cache=False)))}
    capture, same = {}, {}
    for name in ("graphs", "compiled graphs"):
        start = time.perf_counter()
        if name != "graphs":
            thinker.compile("inductor" if device.type == "cuda" else "eager")
        thinker.capture(max(sizes))
        synchronise(device)
        capture[name] = time.perf_counter() - start
        token[name] = {count: _token_ms(thinker, count, tokens) for count in sizes}
        first[name] = time_ms(lambda: _first_tokens(thinker, 1))
        many[name] = time_ms(lambda: _first_tokens(thinker, 16))
        encode[name] = time_ms(lambda: thinker.encode(_chat(0)))
        same |= {f"{name}, {check}": found for check, found in _compare(thinker).items()}
    wave, mel = _noise(), LogMel(tiny_processor().feature_extractor, device)
    listen = partial(thinker._reader.read, Chat("Listen.", "What is it?", audio=(wave,)), 2.0, 0)
    return Report(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu(),
        model=size,
        token=token,
        first_token=first,
        first_tokens=many,
        encode_prompt=encode,
        recording_wall=time_ms(listen),
        recording_cpu=time_ms(listen, clock=time.thread_time),
        mel_cpu={
            "transformers": time_ms(partial(_published_mel, wave), clock=time.process_time),
            "here": time_ms(lambda: mel([wave]), clock=time.thread_time),
        },
        capture_seconds=capture,
        drawn_token={count: _token_ms(thinker, count, tokens, temperature=1.0) for count in sizes},
        attention_error=_attention_error(model.config.text_config, device, model.dtype),
        same_tokens=same,
    )


def _chat(number: int) -> Chat:
    """A chat of `PROMPT_TOKENS` tokens; the tiny tokeniser makes one of each letter and mark."""
    written = len(Chat("", "").text) - sum(len(mark) - 1 for mark in ("<|im_start|>",) * 3 + ("<|im_end|>",) * 2)
    return Chat("", f"{number:02d}".ljust(PROMPT_TOKENS - written, "."))


def _noise() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(SECONDS * 16_000)).astype(np.float32)


def _published_mel(wave: np.ndarray) -> Any:
    extractor = tiny_processor().feature_extractor
    return extractor([wave], sampling_rate=16_000, padding="max_length", return_attention_mask=True)


def _endless(thinker: Thinker) -> Thinker:
    thinker._stops = frozenset()
    return thinker


def _time_ms(
    device: torch.device,
    call: Callable[[], Any],
    *,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The median, after two calls that do not count."""
    seconds = []
    for _ in range(rounds + 2):
        synchronise(device)
        start = clock()
        call()
        if clock is time.perf_counter:
            synchronise(device)
        seconds.append(clock() - start)
    return sorted(seconds[2:])[rounds // 2] * 1e3


def _answers(thinker: Thinker, count: int, tokens: int, temperature: float = 0.0) -> Iterator[list[DecodeState]]:
    """The answers' states before each step; their memory is given back at the end."""
    states = [
        thinker.start(_chat(number), max_new_tokens=tokens, temperature=temperature, seed=number)
        for number in range(count)
    ]
    try:
        while not all(state.finished for state in states):
            yield states
            thinker.step(states)
    finally:
        for state in states:
            thinker.free(state)


def _token_ms(thinker: Thinker, count: int, tokens: int, temperature: float = 0.0) -> float:
    """Of so many answers together: the median step, save the first, which reads, and the last, which does nothing."""
    times = [time.perf_counter() for _ in _answers(thinker, count, tokens + 4, temperature)]
    steps = sorted(after - before for before, after in pairwise(times[2:]))
    return steps[len(steps) // 2] * 1e3


def _first_tokens(thinker: Thinker, count: int) -> None:
    for _ in _answers(thinker, count, 1):
        pass


def _texts(thinker: Thinker, count: int) -> list[list[int]]:
    *_, states = _answers(thinker, count, COMPARED_TOKENS, temperature=0.0)
    return [state._ids for state in states]


def _compare(thinker: Thinker) -> dict[str, bool]:
    """Of answers with graphs: whether they are those without, and those that are given alone."""
    text = thinker._device_side.text
    alone, together = (_texts(thinker, count) for count in (1, 5))
    graphs = text._graphs
    text._graphs = {name: getattr(text, name) for name in graphs}  # type: ignore[misc]
    try:
        plain = [_texts(thinker, count) for count in (1, 5)]
    finally:
        text._graphs = graphs
    return {"as without graphs": [alone, together] == plain, "alone as together": alone[0] == together[0]}


def _attention_error(config: Any, device: torch.device, dtype: torch.dtype) -> float:
    """Of the device's attention, for answers and for prompts of several lengths anywhere in a cache."""
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cache = torch.randn(4000, 2, shared, config.hidden_size // heads).to(device, dtype)
        query = torch.randn(210, heads, config.hidden_size // heads).to(device, dtype)

    def packed(starts: list[int], lengths: list[int], offsets: list[int], most: int) -> PackedSequences:
        tensors = (torch.tensor(values, dtype=torch.int32, device=device) for values in (starts, lengths, offsets))
        return PackedSequences(*tensors, most_rows=most, most_keys=2048)

    cases = [
        (query[:3], packed([700, 1, 3100, 0], [1900, 1, 513], [0, 1, 2, 3], 1)),
        (query, packed([900, 10, 2100, 0], [40, 170, 1500], [0, 40, 200, 210], 256)),
    ]
    attend = attention_for(device, dtype)
    errors = []
    for rows, sequences in cases:
        expected = attend_padded(rows.float(), cache.float(), sequences)
        errors.append(float((attend(rows, cache, sequences).float() - expected).abs().max() / expected.abs().max()))
    return max(errors)


def show(report: Report) -> None:
    """Print the tables."""
    console = Console()
    table = Table(title=f"{report.model} thinker, milliseconds a token")
    ways = [*report.token.items(), ("compiled graphs, drawn", report.drawn_token)]
    table.add_column("answers at once")
    for count in report.drawn_token:
        table.add_column(str(count), justify="right")
    for name, times in ways:
        table.add_row(name, *(f"{ms:.2f} ({count / ms * 1e3:.0f}/s)" for count, ms in times.items()))
    console.print(table)
    table = Table(title=f"milliseconds, prompts of {PROMPT_TOKENS} tokens")
    for column in ("", *report.first_token):
        table.add_column(column, justify="right" if column else "left")
    rows = {"first token": report.first_token, "first tokens of 16 prompts": report.first_tokens}
    for name, times in (rows | {"encode_prompt": report.encode_prompt}).items():
        table.add_row(name, *(f"{ms:.1f}" for ms in times.values()))
    console.print(table)
    mel = ", ".join(f"{name} {ms:.1f}" for name, ms in report.mel_cpu.items())
    console.print(f"a recording of {SECONDS} s: {report.recording_wall:.1f} ms, {report.recording_cpu:.1f} of a core")
    console.print(f"its mel, ms of the host: {mel}")
    console.print(f"capturing, s: {report.capture_seconds}", highlight=False)
    console.print(f"attention differs by {report.attention_error:.1e}; same tokens: {report.same_tokens}")
    console.print(f"{report.date}; {report.device}", highlight=False)


@app.command()
def main(
    size: Annotated[str | None, typer.Option(help="tiny or full; full on a GPU, tiny elsewhere by default.")] = None,
    answers: Annotated[str, typer.Option(help="Numbers of answers that are written together.")] = "1,16,64",
    tokens: Annotated[int, typer.Option(min=1, help="Of each answer that is timed.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the answers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = size or ("full" if device.type == "cuda" else "tiny")
    report = measure("full" if chosen == "full" else "tiny", device, [int(one) for one in answers.split(",")], tokens)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
