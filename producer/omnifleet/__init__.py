"""omnifleet: understand, generate and edit audio with Audio-Omni, run as a fleet. Start with `Client`."""

from __future__ import annotations

from importlib.metadata import version

from omnifleet_shared.errors import (
    BrokerUnavailable,
    CheckpointInvalid,
    DeadlineExceeded,
    EngineStopped,
    ForeignURI,
    InvalidJob,
    InvalidMessage,
    InvalidSetting,
    JobCancelled,
    JobFailed,
    LanguageNotSupported,
    MediaEmpty,
    MediaError,
    MediaNotFound,
    MediaTooLarge,
    MediaTooLong,
    MediaUnreadable,
    OmnifleetError,
    OutOfMemory,
    PermanentError,
    ResultTimeout,
    SchemaTooNew,
    StorageRefused,
    StorageUnavailable,
    TaskNotSupported,
    TransientError,
    UnknownJob,
    UnknownTask,
)
from omnifleet_shared.results import JobStatus, Progress
from omnifleet_shared.settings import FleetSettings

from .client import Client
from .handle import JobHandle
from .results import Audio, AudioResult, JobResult, TextResult

__version__ = version("omnifleet")

__all__ = [
    "Audio",
    "AudioResult",
    "BrokerUnavailable",
    "CheckpointInvalid",
    "Client",
    "DeadlineExceeded",
    "EngineStopped",
    "FleetSettings",
    "ForeignURI",
    "InvalidJob",
    "InvalidMessage",
    "InvalidSetting",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobResult",
    "JobStatus",
    "LanguageNotSupported",
    "MediaEmpty",
    "MediaError",
    "MediaNotFound",
    "MediaTooLarge",
    "MediaTooLong",
    "MediaUnreadable",
    "OmnifleetError",
    "OutOfMemory",
    "PermanentError",
    "Progress",
    "ResultTimeout",
    "SchemaTooNew",
    "StorageRefused",
    "StorageUnavailable",
    "TaskNotSupported",
    "TextResult",
    "TransientError",
    "UnknownJob",
    "UnknownTask",
    "__version__",
]
