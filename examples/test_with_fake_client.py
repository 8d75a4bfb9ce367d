"""Test your own code without a fleet: pytest test_with_fake_client.py"""

from pathlib import Path

from omnifleet import Client, MediaUnreadable
from omnifleet.testing import FakeClient


def subtitle(omni: Client, path: str) -> str:
    """The code under test."""
    try:
        return omni.understand("transcribe", path).result(timeout=60).text.upper()
    except MediaUnreadable:
        return "[no sound]"


def test_subtitles_are_in_capitals(tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    recording.write_bytes(b"any bytes: nothing decodes them")
    omni = FakeClient(answer=lambda job: "hello")

    assert subtitle(omni, str(recording)) == "HELLO"
    assert omni.jobs[0].task.name == "transcribe"


def test_a_broken_recording_has_no_subtitle(tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    recording.write_bytes(b"anything")
    omni = FakeClient(answer=lambda job: MediaUnreadable("it is cut off", "audio"))

    assert subtitle(omni, str(recording)) == "[no sound]"
