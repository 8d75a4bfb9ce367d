"""Add a voice under a name, speak with it twice, and remove it for good: python named_voice.py voice.wav"""

import sys

from omnifleet import Client, VoiceNotFound


def main(recording: str = "voice.wav") -> None:
    with Client() as omni:
        voice = omni.voices.add("guide", recording, text="A e i o u", consent="my own voice, for trying this out")
        print(f"{voice.name} was added by {voice.added_by}")
        try:
            # The workers prepare the voice once, for whatever they say with it.
            jobs = {
                word: omni.generate("tts", word, ref="voice:guide", quality="fast") for word in ("Hello", "Goodbye")
            }
            for word, job in jobs.items():
                print(f"saved {job.save(f'{word.lower()}.wav', timeout=300)}")
        finally:
            omni.voices.remove("guide")

        try:
            omni.generate("tts", "Hello again", ref="voice:guide")
        except VoiceNotFound as error:
            print(error)


if __name__ == "__main__":
    main(*sys.argv[1:2])
