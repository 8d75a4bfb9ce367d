"""Make sounds from a description, then keep one of them: python generate_and_edit.py "a siren with rain" "a siren" """

import sys

from omnifleet import Client


def main(description: str = "a siren with rain", kept: str = "a siren") -> None:
    with Client() as omni:  # settings come from OMNIFLEET_* in the environment
        made = omni.generate("t2a", description, seconds=5.0, seed=7, quality="fast").result(timeout=300)
        print(f"made by {made.model.name}, licence {made.model.licence}")
        path = made.audio.save("made.wav")

        # A path uploads the file; made.audio.uri would name what lies in the storage already.
        edited = omni.edit("extract", path, desc=kept, seed=7, quality="fast", format="flac")
        print(f"saved {edited.save('kept.flac', timeout=300)}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
