"""Keep one sound of every recording of a folder: python batch_edit.py recordings "a siren" """

import sys
from pathlib import Path

from omnifleet import Client
from omnifleet.batch import edit


def main(folder: str = "recordings", sound: str = "a siren") -> None:
    clips = sorted(Path(folder).glob("*.wav"))
    out = Path("kept")
    out.mkdir(exist_ok=True)
    requests = (edit("extract", clip, desc=sound) for clip in clips)
    with Client() as omni:
        # Never more than `in_flight` jobs are in the fleet; outcomes come as soon as they are there.
        for outcome in omni.batch(requests, in_flight=64):
            clip = clips[outcome.index]
            if outcome.error is not None:
                print(f"{clip.name}: {type(outcome.error).__name__}: {outcome.error}")
            else:
                print(f"{clip.name}: {outcome.result.save(out / clip.name)}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
