"""Journals in storage: what was written is read back, whoever wrote it, in the form of the first journals."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet.batch.journal.journal import Entry
from omnifleet.batch.journal.storage_journal import StorageJournal
from omnifleet.testing.storage import MemoryStorage

ENTRIES = st.builds(
    Entry,
    line=st.integers(1, 5),
    attempt=st.integers(0, 9),
    status=st.sampled_from(["sent", "again", "succeeded", "failed", "cancelled"]),
    job_id=st.text(max_size=9),
    sent_at=st.none() | st.floats(0, 2e9),
    reason=st.none() | st.text(max_size=9),
    record=st.none() | st.text(max_size=9),
)


@settings(deadline=None)
@given(entries=st.lists(ENTRIES, max_size=12))
def test_the_last_entry_of_every_line_is_read_back(entries: list[Entry]) -> None:
    storage = MemoryStorage()
    with StorageJournal(storage, "s3://memory/night") as journal:
        journal.claim()
        for entry in entries:
            journal.write(entry)
        journal.checkpoint(now=True)

    with StorageJournal(storage, "s3://memory/night") as reopened:
        found = {line: reopened.entry(line) for line in range(1, 6)}

    assert {line: entry for line, entry in found.items() if entry} == {entry.line: entry for entry in entries}


@pytest.mark.parametrize("status", ["again", "sent"])
def test_objects_of_the_first_journals_are_read(status: str) -> None:
    storage = MemoryStorage()
    fields = {"line": 3, "round": 2, "status": status, "job_id": "j", "sent_at": None, "reason": None, "record": None}
    storage.put("night/000000/000000.jsonl", io.BytesIO(json.dumps(fields).encode()), content_type="application/json")

    with StorageJournal(storage, "s3://memory/night") as journal:
        entry = journal.entry(3)

    assert entry is not None
    assert (entry.attempt, entry.status) == (2, status)
