"""The same calls without a fleet: python local_model.py /models/audio-omni

Needs pip install 'omnifleet[worker]'. A tiny checkpoint to try it on a CPU: omnifleet-worker tiny-checkpoint DIR
"""

import sys

from omnifleet.local import LocalModel


def main(checkpoint: str) -> None:
    with LocalModel(checkpoint) as omni:
        # Sent together, they share the engine's steps.
        jobs = {text: omni.generate("t2a", text, seconds=5, quality="fast") for text in ("rain", "wind", "a bell")}
        for text, job in jobs.items():
            print(job.save(f"{text}.wav"))


if __name__ == "__main__":
    main(sys.argv[1])
