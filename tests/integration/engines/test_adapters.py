"""An adapter through a real worker and a real S3 API: the result is the merged checkpoint's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet import AdapterInvalid, AdapterNotFound, AudioResult, Client
from omnifleet.local import LocalModel
from omnifleet_worker.training.merge import merge
from support.data import media_files
from support.data.adapters import write_adapter

WAIT = 240.0
RAIN: dict[str, Any] = {"text": "rain", "seconds": 12.0, "steps": 2, "seed": 3}
"""Two windows."""
EDIT: dict[str, Any] = {"desc": "rain", "steps": 2, "seed": 3, "loudness": "peak", "dry_run": False}
SOUND = media_files.wav(2.0, 44_100, 2)
LICENCE = "CC BY-NC 4.0"


def heard(result: AudioResult, folder: Path) -> np.ndarray:
    samples, _ = soundfile.read(result.save(folder / f"{result.job_id}.wav"))
    return np.asarray(samples)


def test_what_is_made_with_an_adapter_is_what_the_merged_checkpoint_makes(
    omni: Client, checkpoint: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "adapter", checkpoint)
    merge(checkpoint, folder, tmp_path / "merged")
    adapter = omni.adapters.add("merged-rain", folder, licence=LICENCE)

    jobs = [omni.generate("t2a", **RAIN, adapter=one) for one in (None, "merged-rain", adapter.reference)]
    edits = [omni.edit("add", SOUND, **EDIT, adapter=one) for one in (None, "merged-rain")]
    plain, named, pinned = (job.result(WAIT) for job in jobs)
    unchanged, edited = (job.result(WAIT) for job in edits)
    with LocalModel(tmp_path / "merged", device="cpu") as merged:
        wanted = heard(merged.generate("t2a", **RAIN).result(WAIT), tmp_path)
        wanted_edit = heard(merged.edit("add", SOUND, **EDIT).result(WAIT), tmp_path)

    for adapted in (named, pinned):
        assert np.abs(heard(adapted, tmp_path) - wanted).max() < 1e-3
    assert np.abs(heard(plain, tmp_path) - wanted).max() > 0.1
    assert np.abs(heard(edited, tmp_path) - wanted_edit).max() < 1e-3
    assert np.abs(heard(unchanged, tmp_path) - wanted_edit).max() > 0.1
    used = named.adapter
    assert used is not None and (used.name, used.sha256, used.licence) == ("merged-rain", adapter.sha256, LICENCE)
    assert plain.adapter is None


def test_one_of_another_checkpoint_is_refused_by_the_worker_and_one_that_is_gone_by_all(
    omni: Client, checkpoint: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "adapter", checkpoint, seed=1, revision="another")
    omni.adapters.add("of-another", folder, licence=LICENCE)

    with pytest.raises(AdapterInvalid, match=r"it was trained on .* another, and the worker runs"):
        omni.generate("t2a", **RAIN, adapter="of-another").result(WAIT)
    omni.adapters.remove("of-another")

    with pytest.raises(AdapterNotFound, match="there is no adapter 'of-another'"):
        omni.generate("t2a", **RAIN, adapter="of-another")
