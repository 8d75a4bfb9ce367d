"""Transcribe a recording, ask about it, and get an answer as a record: python understand_audio.py call.mp3"""

import sys

from omnifleet import AnswerUnreadable, Client


def main(path: str = "call.mp3") -> None:
    with Client() as omni:
        # All three are sent before the first is waited for, so that a worker answers them together.
        transcript = omni.understand("transcribe", path)
        answer = omni.understand("What is the mood of the speaker?", path, max_new_tokens=100)
        speakers = omni.understand("speakers", path, max_new_tokens=200)

        print(f"transcript: {transcript.result().text}")
        print(f"answer: {answer.result().text}")
        try:
            print(f"speakers: {speakers.result().answer}")
        except AnswerUnreadable as error:  # the model did not answer in the form of the record
            print(f"speakers, as text: {error.details['text']}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
