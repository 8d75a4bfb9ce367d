"""Names for files of results, as a person would choose them: `add-rain-sounds.wav`."""

from __future__ import annotations

import re
import unicodedata

MOST_CHARACTERS = 60
"""Of a name, its suffix not counted."""


def file_name(task: str, about: str, suffix: str) -> str:
    """Name a file by its task and what that was about.

    Args:
        task: name of the task, such as `add`.
        about: a text, or the name of another file without its suffix; what is no ASCII letter or digit is left out.
        suffix: of the file, without its dot.

    Returns:
        Letters, digits, `-` and one dot: a name that every file system and HTTP header takes.
    """
    plain = unicodedata.normalize("NFKD", f"{task} {about}").encode("ascii", "ignore").decode()
    words = "-".join(re.findall(r"[A-Za-z0-9]+", plain.replace("'", "")))
    if len(words) > MOST_CHARACTERS:
        words = words[: MOST_CHARACTERS + 1].rpartition("-")[0] or words[:MOST_CHARACTERS]
    return f"{words}.{suffix}"
