"""What jobs are told of a model that its capabilities describe, as those of all engines but Audio-Omni's."""

from __future__ import annotations

from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.model_card import ModelCard


class DescribedModel:
    """All of a `JobModel` but `run`, what it makes of a job, which a class that extends it adds.

    It keeps no voices, and takes no adapters.

    Args:
        capabilities: what it can do and may be used for.
        precision: what it computes in, and where.
    """

    keeps_voices = False
    adapters = None

    def __init__(self, capabilities: Capabilities, *, precision: str = "") -> None:
        self.capabilities = capabilities
        self.card = _card(capabilities)
        self.precision = precision

    def validate_job(self, job: Job) -> None:
        """Refuse a job that the model cannot do. Raises as `Capabilities`."""
        self.capabilities.validate_job(job)


def _card(capabilities: Capabilities) -> ModelCard:
    """The card, for the limits of what is decoded."""
    return ModelCard(
        **capabilities.model_dump(include={"name", "licence", "commercial_use"}),
        revision=capabilities.revision or "unknown",
        parts=capabilities.parts,
        languages=tuple({code for task in capabilities.tasks.values() for code in task.languages or ()}),
        tasks=tuple(capabilities.tasks),
    )
