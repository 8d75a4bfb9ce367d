"""An adapter is loaded once a worker, kept as long as there is room, and applied to every clip of its job."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omnifleet.adapters import Adapters
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.errors import (
    AdapterInvalid,
    AdapterNotFound,
    LicenceRefused,
    OmnifleetError,
    StorageUnavailable,
    TaskNotSupported,
)
from omnifleet_shared.schema.adapter import Adapter
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts.finished_parts import FinishedParts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.model_loader import describe
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.models.content_cache import digest
from omnifleet_worker.settings import WorkerSettings
from support.data.adapters import write_adapter

ROOM = 2**18
"""For two adapters of rank 4 of the tiny checkpoint, not for three."""


class Storage(MemoryStorage):
    """Counts what is read, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.away = 0

    def open(self, uri: str, *, start: int = 0) -> Any:
        if self.away:
            self.away -= 1
            raise StorageUnavailable("the storage is away")
        self.opened.append(self.key(uri))
        return super().open(uri, start=start)


class Engine:
    """Gives every clip the same samples."""

    def __init__(self) -> None:
        self.sampled: list[DiffusionInputs] = []

    def submit(self, request: Request) -> Request:
        assert not isinstance(request.inputs, ChatInputs)
        assert isinstance(request.inputs, DiffusionInputs)
        self.sampled.append(request.inputs)
        request.outcome.set_result(np.ones((2, CLIP_SAMPLES), np.float32))
        return request

    def least_seconds(self, *_: object) -> float:
        return 0.0


class Worker:
    def __init__(self, pipeline: AudioOmniPipeline, storage: Storage, *, room: int = ROOM, rank: int = 8) -> None:
        model = describe(pipeline, adapter_rank=rank, adapter_bytes=room)
        self._runner = JobRunner(model, storage, WorkerSettings(retry_backoff=0.01))
        self.engine = Engine()

    def generate(self, adapter: Adapter | None, scale: float = 1.0, seconds: float = 2.0, **options: Any) -> JobResult:
        named = {} if adapter is None else {"adapter": {"name": adapter.name, "sha256": adapter.sha256, "scale": scale}}
        task = {"name": "t2a", "text": "rain", "seconds": seconds}
        job = read_job({"schema_version": 9, "namespace": "generate", "task": task, "seed": 1, **named, **options})
        return self._runner.run(JobContext(job, self.engine))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pipeline() -> AudioOmniPipeline:
    return tiny_pipeline()


@pytest.fixture
def storage() -> Storage:
    return Storage()


AddAdapter = Callable[..., Adapter]


@pytest.fixture
def add(storage: Storage, checkpoint: Path, tmp_path: Path) -> AddAdapter:
    def add_one(name: str, licence: str = "none", commercial_use: bool = False, **about: Any) -> Adapter:
        folder = write_adapter(tmp_path / name, checkpoint, **about)
        return Adapters(FleetSettings(), storage).add(name, folder, licence=licence, commercial_use=commercial_use)

    return add_one


def read(storage: Storage) -> list[str]:
    found = [key.rpartition("/")[2] for key in storage.opened]
    storage.opened.clear()
    return found


FILES = ["manifest.json", "adapter_config.json", "adapter_model.safetensors"]


def test_it_is_read_once_and_applied_to_every_clip_of_every_job_that_names_it(
    pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter
) -> None:
    worker, adapter = Worker(pipeline, storage), add("rain", licence="CC BY 4.0")
    read(storage)

    result = worker.generate(adapter, 0.5, seconds=30.0)
    assert read(storage) == FILES
    worker.generate(adapter, 2.0)
    worker.generate(None)

    assert read(storage) == []
    used = [one.adapter for one in worker.engine.sampled]
    assert [one and (one.sha256, one.scale) for one in used] == [(adapter.sha256, 0.5)] * 3 + [
        (adapter.sha256, 2.0),
        None,
    ]
    assert used[0] is not None and used[3] is not None and used[0].weights is used[3].weights
    assert result.adapter is not None
    assert result.adapter.model_dump() == {
        "name": "rain",
        "sha256": adapter.sha256,
        "scale": 0.5,
        "licence": "CC BY 4.0",
    }


def test_where_there_is_no_room_for_all_the_one_that_was_named_least_recently_goes(
    pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter
) -> None:
    worker, adapters = Worker(pipeline, storage), [add(name, seed=seed) for seed, name in enumerate("abc")]
    for number in (0, 1, 0, 2):
        worker.generate(adapters[number])
    read(storage)

    worker.generate(adapters[0])
    assert read(storage) == []
    worker.generate(adapters[1])

    assert read(storage) == FILES


def test_what_is_computed_with_another_adapter_or_scale_is_another_part_and_the_weights_do_not_count(
    pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter
) -> None:
    one, other = add("one"), add("other", seed=1)
    parts = FinishedParts(storage, ("model",))
    worker, second = Worker(pipeline, storage), Worker(pipeline, storage)

    for adapter, scale in ((one, 1.0), (one, 0.5), (other, 1.0), (None, 1.0)):
        worker.generate(adapter, scale)
    second.generate(one, 1.0)

    prints = [parts.fingerprint(inputs) for inputs in worker.engine.sampled]
    assert len(set(prints)) == 4
    assert parts.fingerprint(second.engine.sampled[0]) == prints[0]
    assert digest(second.engine.sampled[0]) == digest(worker.engine.sampled[0])
    parts.close()


def test_a_storage_that_is_away_for_a_while_is_waited_for(
    pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter
) -> None:
    worker, adapter = Worker(pipeline, storage), add("rain")
    storage.away = 2

    assert worker.generate(adapter).adapter is not None


class TestRefused:
    @pytest.mark.parametrize(
        ("about", "limits", "problem"),
        [
            ({"revision": "another"}, {}, "it was trained on .* another, and the worker runs"),
            ({"rank": 9}, {}, "is of rank 9, and 8 is the most here"),
            ({}, {"room": 1000}, "the worker has 1,000 for adapters"),
        ],
    )
    def test_what_does_not_fit_the_worker(
        self,
        about: dict[str, Any],
        limits: dict[str, int],
        problem: str,
        pipeline: AudioOmniPipeline,
        storage: Storage,
        add: AddAdapter,
    ) -> None:
        worker, adapter = Worker(pipeline, storage, **limits), add("rain", **about)

        with pytest.raises(AdapterInvalid, match=problem):
            worker.generate(adapter)
        assert worker.engine.sampled == []

    @pytest.mark.parametrize("file", FILES)
    def test_what_is_not_what_was_added(
        self, file: str, pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter
    ) -> None:
        adapter = add("rain")
        key = f"adapters/{adapter.sha256}/{file}"
        other = storage.get(storage.uri(key), max_bytes=2**20) + b" "
        storage.put(key, io.BytesIO(other), content_type="text/plain")

        with pytest.raises(AdapterInvalid, match=f"{file} is not what was added"):
            Worker(pipeline, storage).generate(adapter)

    def test_what_was_removed(self, pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter) -> None:
        adapter = add("rain")
        Adapters(FleetSettings(), storage).remove("rain")

        with pytest.raises(AdapterNotFound, match=f"nothing is stored of the adapter sha256:{adapter.sha256}"):
            Worker(pipeline, storage).generate(adapter)

    def test_a_commercial_job_with_an_adapter_that_is_not_for_that(self, storage: Storage, add: AddAdapter) -> None:
        free = tiny_pipeline()
        free.card |= {"commercial_use": True, "parts": []}
        worker, adapters = Worker(free, storage), [add("a"), add("b", seed=1, commercial_use=True)]

        for _ in range(2):  # read, and kept
            with pytest.raises(LicenceRefused, match="the adapter a is under none"):
                worker.generate(adapters[0], commercial=True)
        assert worker.generate(adapters[1], commercial=True).adapter is not None

    def test_any_by_a_worker_that_keeps_none(
        self, pipeline: AudioOmniPipeline, storage: Storage, add: AddAdapter
    ) -> None:
        worker, adapter = Worker(pipeline, storage, room=0), add("rain")

        with pytest.raises(TaskNotSupported, match="this worker takes no adapters") as refused:
            worker.generate(adapter)

        assert refused.value.field == "adapter"
        assert not describe(pipeline).capabilities.adapters
        assert describe(pipeline, adapter_rank=1, adapter_bytes=1).capabilities.adapters
        assert isinstance(refused.value, OmnifleetError)
