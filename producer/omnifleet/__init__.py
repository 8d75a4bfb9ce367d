"""omnifleet: understand, generate and edit audio with Audio-Omni, run as a fleet. Start with `Client`."""

from __future__ import annotations

from importlib.metadata import version

from omnifleet_shared.errors import (
    AnswerUnreadable,
    BatchRunning,
    BrokerUnavailable,
    CallbackRefused,
    CheckpointInvalid,
    DeadlineExceeded,
    DeviceFailed,
    DiskFull,
    EditAmbiguous,
    EngineStopped,
    ForeignURI,
    InvalidJob,
    InvalidJobList,
    InvalidMessage,
    InvalidSetting,
    JobCancelled,
    JobFailed,
    JobQuarantined,
    JournalMismatch,
    LanguageNotSupported,
    LicenceRefused,
    MediaEmpty,
    MediaError,
    MediaNotFound,
    MediaTooLarge,
    MediaTooLong,
    MediaUnreadable,
    OmnifleetError,
    OutOfMemory,
    PermanentError,
    QueueFull,
    ResultTimeout,
    SchemaTooNew,
    SignatureInvalid,
    StorageRefused,
    StorageUnavailable,
    TaskNotSupported,
    TransientError,
    UnknownJob,
    UnknownTask,
)
from omnifleet_shared.schema.answers import Classification, Feedback, Gender, Sarcasm, Scene, Sources, Speakers
from omnifleet_shared.schema.callback import CallbackDelivery, CallbackOutcome
from omnifleet_shared.schema.results import EditPlan, JobStatus, Progress
from omnifleet_shared.schema.tasks import Turn
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.webhooks.signatures import verify_callback

from .async_client import AsyncClient
from .async_handle import AsyncJobHandle
from .client import Client
from .handle import JobHandle
from .results.results import Audio, AudioResult, JobResult, TextResult, Video

__version__ = version("omnifleet")

__all__ = [
    "AnswerUnreadable",
    "AsyncClient",
    "AsyncJobHandle",
    "Audio",
    "AudioResult",
    "BatchRunning",
    "BrokerUnavailable",
    "CallbackDelivery",
    "CallbackOutcome",
    "CallbackRefused",
    "CheckpointInvalid",
    "Classification",
    "Client",
    "DeadlineExceeded",
    "DeviceFailed",
    "DiskFull",
    "EditAmbiguous",
    "EditPlan",
    "EngineStopped",
    "Feedback",
    "FleetSettings",
    "ForeignURI",
    "Gender",
    "HeardSegment",
    "HeardWord",
    "InvalidJob",
    "InvalidJobList",
    "InvalidMessage",
    "InvalidSetting",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobQuarantined",
    "JobResult",
    "JobStatus",
    "JournalMismatch",
    "LanguageNotSupported",
    "LicenceRefused",
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
    "QueueFull",
    "ResultTimeout",
    "Sarcasm",
    "Scene",
    "SchemaTooNew",
    "SignatureInvalid",
    "Sources",
    "Speakers",
    "StorageRefused",
    "StorageUnavailable",
    "TaskNotSupported",
    "TextResult",
    "TransientError",
    "Turn",
    "UnknownJob",
    "UnknownTask",
    "Video",
    "__version__",
    "verify_callback",
]
