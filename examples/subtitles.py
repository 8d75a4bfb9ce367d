"""Transcribe a recording with the time of every word, and write its subtitles: python subtitles.py call.mp3"""

import sys
from pathlib import Path

from omnifleet import Client, TaskNotSupported


def main(path: str = "call.mp3") -> None:
    with Client() as omni:
        try:
            result = omni.understand("transcribe", path, timestamps="word").result(timeout=600)
        except TaskNotSupported:  # these workers have no aligner: the times of segments need none
            result = omni.understand("transcribe", path, timestamps="segment").result(timeout=600)

        for segment in result.segments or ():
            print(f"{segment.start:8.2f} {segment.end:8.2f}  {segment.text}")
        for warning in result.warnings:
            print(f"warning: {warning}")
        for suffix in (".srt", ".vtt", ".json"):
            print(f"saved {result.save(Path(path).with_suffix(suffix).name)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
