"""Models that are known before any worker says what it can do, and the queues of a fleet's models."""

from __future__ import annotations

from collections.abc import Iterable

from .keys import MODEL_QUEUE
from .schema.capabilities import Capabilities, LicensedPart, TaskCapability
from .schema.model_card import AUDIO_OMNI
from .settings import FleetSettings

_VOXCPM2_LANGUAGES = (
    *("ar", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "id", "it", "ja", "km", "ko", "lo"),
    *("ms", "my", "nl", "no", "pl", "pt", "ru", "sv", "sw", "th", "tl", "tr", "vi", "zh"),
)

SHIPPED = {
    model.name: model
    for model in (
        AUDIO_OMNI.capabilities,
        Capabilities(
            name="voxcpm2",
            engine="voxcpm",
            licence="Apache-2.0",
            commercial_use=True,
            # The last two with a recogniser beside it.
            tasks=dict.fromkeys(
                ("generate.tts", "generate.vc", "edit.speech"), TaskCapability(languages=_VOXCPM2_LANGUAGES)
            ),
            sample_rate=48_000,
            cloning=True,
            voice_seconds=30,
            streaming=True,
        ),
        Capabilities(
            name="omnivoice",
            engine="omnivoice",
            licence="CC BY-NC 4.0",
            parts=(LicensedPart(name="audio tokenizer (Higgs)", licence="terms of its own"),),
            # Over six hundred.
            tasks={"generate.tts": TaskCapability(max_seconds=30)},
            sample_rate=24_000,
            cloning=True,
            voice_seconds=20,
            streaming=True,
            speed=True,
            timed=True,
            needs_transcript=True,
        ),
        Capabilities(
            name="fish-s2-pro",
            engine="fish",
            licence="the Fish Audio Research License",
            # Over eighty.
            tasks={"generate.tts": TaskCapability()},
            sample_rate=44_100,
            cloning=True,
            streaming=True,
            needs_transcript=True,
        ),
        Capabilities(
            name="whisper-large-v3-turbo",
            engine="transformers",
            licence="MIT",
            commercial_use=True,
            # Ninety-nine.
            tasks={"understand.transcribe": TaskCapability()},
            streaming=True,
        ),
        Capabilities(
            name="audiosep",
            engine="audiosep",
            licence="MIT",
            commercial_use=True,
            # By the card of lukewys/laion_clap on the Hugging Face hub, whence its file is.
            parts=(LicensedPart(name="text encoder (LAION's CLAP)", licence="CC0-1.0", commercial_use=True),),
            tasks=dict.fromkeys(("edit.extract", "edit.remove"), TaskCapability(languages=("en",), max_seconds=600)),
        ),
    )
}
"""Capabilities by the models' names. What workers report comes before them: it is of the checkpoint that they run."""


def fleet_queues(settings: FleetSettings, reported: Iterable[str] = ()) -> tuple[str, ...]:
    """Name all queues that a fleet's jobs may be in.

    Args:
        settings: the queues of its models come first, those of the models that ship next.
        reported: queues whose workers reported, of any fleet; those of other models of this one come last, by name.
    """
    known = {model: settings.queue_of(model) for model in SHIPPED}
    others = sorted(queue for queue in reported if queue.startswith(MODEL_QUEUE.format(queue=settings.queue, model="")))
    return tuple(dict.fromkeys((*settings.model_queues.values(), *known.values(), settings.queue, *others)))
