"""A speech server as a model: each text is asked for on a thread of its own, so that the engine goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, Protocol

import numpy as np
from omnifleet_shared.errors import InvalidSetting, JobFailed, ModelServerUnavailable
from omnifleet_shared.schema.capabilities import Capabilities
from pydantic import BaseModel, ConfigDict, ValidationError

from ...installation import checkpoint_folder
from ...media.encode import encode_samples
from ...media.wav import missing_from_wav, read_wav
from ...models.speech_model import ReferenceVoice, Samples, SpeechInputs
from ...settings import WorkerSettings
from ..folder_card import read_capabilities, read_card
from ..loaded_model import LoadedModel
from ..speech.engine import run_speech_model
from .client import SpeechServer
from .exchange import Exchange

POLL_SECONDS = 0.02
"""How long the engine waits for an answer before it looks after its other requests."""
MOST_TEXT = 1000
"""Characters that are asked for at once; servers cut them as their models need."""
_NOTHING: Samples = np.zeros(0, np.float32)


class ServerCard(BaseModel):
    """What `server` in the folder's card says of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    """Name of the model there."""
    voice: str | None = None
    """Name of the voice where the job brings none."""
    languages: Mapping[str, str] = {}
    """What the server calls a language, by its code; the code itself where it is not here."""


class Dialect(Protocol):
    """What a kind of server is asked, and where."""

    path: str
    health_path: str

    def body(self, inputs: SpeechInputs, card: ServerCard) -> dict[str, Any]:
        """Make the JSON of a request for a wav file."""
        ...


class ServerSpeech:
    """See `SpeechModel`.

    Args:
        server: speaks.
        dialect: of the server.
        card: names of things there.
        sample_rate: in Hz, of its answers.
        places: texts that it is given at the same time.
    """

    def __init__(
        self, server: SpeechServer, dialect: Dialect, card: ServerCard, *, sample_rate: int, places: int
    ) -> None:
        self.sample_rate = sample_rate
        self.places = places
        self.most_steps = 1
        self._server = server
        self._dialect = dialect
        self._card = card

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        """Ask for a text, and give what comes in one piece; empty ones meanwhile."""
        exchange, body = Exchange(), self._dialect.body(inputs, self._card)
        answer = _on_thread(lambda: self._server.post(self._dialect.path, body, exchange))
        try:
            while not answer.done():
                wait([answer], POLL_SECONDS)
                yield _NOTHING
            yield self._decode(answer.result())
        finally:
            exchange.end()

    def why_unwell(self) -> str | None:
        """Ask for the server's health."""
        return self._server.why_unwell(self._dialect.health_path)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _decode(self, data: bytes) -> Samples:
        wav = read_wav(data, "text")
        if wav is None:
            raise JobFailed("the speech server answered with no wav file", None, "Ask the server for wav")
        if missing_from_wav(data):
            raise ModelServerUnavailable("the speech server's answer ended early", None, "See to the server")
        if wav.rate != self.sample_rate:
            problem = f"the speech server speaks at {wav.rate} Hz, and its card says {self.sample_rate}"
            raise JobFailed(problem, "card.json", "Correct sample_rate there")
        blocks = [block.mean(axis=1) for block in wav.blocks(np.dtype(np.float32))]
        return np.concatenate(blocks) if blocks else _NOTHING


def load_server(settings: WorkerSettings, name: str, dialect: Dialect, **known: Any) -> LoadedModel:
    """Make a speech server ready as an engine; it need not answer yet.

    Args:
        settings: its address, and the folder of its card.
        name: of the engine.
        dialect: of the server.
        known: what is known of all its models; see `read_capabilities`.

    Raises:
        InvalidSetting: no server is named, or the card says nothing of its sample rate.
        CheckpointInvalid: the folder has no card.
    """
    server, folder = SpeechServer.of_settings(settings), checkpoint_folder(settings)
    capabilities = read_capabilities(folder, name, **known)
    rate = _sample_rate(capabilities)
    try:
        card = ServerCard.model_validate(read_card(folder).get("server", {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in ("server", *first["loc"]))
        raise InvalidSetting(first["msg"], f"card.json: {field}", "docs/engines.md says what it takes") from error
    model = ServerSpeech(server, dialect, card, sample_rate=rate, places=settings.server_places)
    return run_speech_model(model, capabilities, precision=server.url, most_text=MOST_TEXT)


def wav_of(voice: ReferenceVoice) -> bytes:
    """Encode a voice as servers take it."""
    return encode_samples(voice.wave[None], voice.sample_rate, "wav", "PCM_16")


def _sample_rate(capabilities: Capabilities) -> int:
    if capabilities.sample_rate is None:
        raise InvalidSetting("it is not said at how many Hz the server speaks", "card.json: sample_rate", "Add it")
    return capabilities.sample_rate


def _on_thread(work: Callable[[], bytes]) -> Future[bytes]:
    """Run it on a thread that keeps no process from ending."""
    future: Future[bytes] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="speech-server", daemon=True).start()
    return future
