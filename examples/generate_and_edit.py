"""Make a sound from a description, then add rain to it: python generate_and_edit.py "a busy street" """

import sys

from omnifleet import Client


def main(description: str = "a busy street") -> None:
    with Client() as omni:  # settings come from OMNIFLEET_* in the environment
        street = omni.generate("t2a", description, seconds=5.0, seed=7, quality="fast").result(timeout=300)
        print(f"made by {street.model.name}, licence {street.model.licence}")
        path = street.audio.save("street.wav")

        # A path uploads the file; street.audio.uri would name what lies in the storage already.
        rainy = omni.edit("add", path, desc="rain sounds", format="flac")
        print(f"saved {rainy.save('street-rain.flac', timeout=300)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
