"""The same calls without a fleet: python local_model.py /models/audio-omni

Needs pip install 'omnifleet[worker]'. Of a checkout, this writes a small checkpoint for a CPU:
python -m demo.training.trained DIR
"""

import sys

from omnifleet.local import LocalModel


def main(checkpoint: str) -> None:
    with LocalModel(checkpoint) as omni:
        # Sent together, they share the engine's steps.
        texts = ("rain", "surf", "a siren")
        jobs = {text: omni.generate("t2a", text, seconds=5, seed=7, quality="fast") for text in texts}
        for text, job in jobs.items():
            print(job.save(f"{text}.wav"))


if __name__ == "__main__":
    main(sys.argv[1])
