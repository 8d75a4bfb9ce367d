"""Media types of what jobs make."""

from __future__ import annotations

from typing import get_args

from omnifleet_shared.content_types import CONTENT_TYPES
from omnifleet_shared.schema.jobs import AudioFormat
from omnifleet_shared.schema.results import VideoFormat


def test_every_format_has_a_media_type_of_its_kind() -> None:
    kinds = {form: kind.partition("/")[0] for form, kind in CONTENT_TYPES.items()}

    audio, video = dict.fromkeys(get_args(AudioFormat), "audio"), dict.fromkeys(get_args(VideoFormat), "video")
    assert kinds == audio | video
