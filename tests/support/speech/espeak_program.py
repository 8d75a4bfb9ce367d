"""A program that says the text on its standard input with espeak-ng: `python espeak_program.py LANGUAGE`.

espeak-ng is under the GPL, and so runs in a process of its own: samples, int16 at `RATE`, come on the standard output.
It imports nothing of omnifleet.
"""

from __future__ import annotations

import ctypes
import sys

import espeakng_loader  # type: ignore[import-untyped, unused-ignore]

RATE = 22_050
"""Hz."""
_WORDS_A_MINUTE = 160
_RETRIEVAL, _RATE_PARAMETER, _UTF8 = 1, 1, 1


def main(language: str) -> None:
    """Say the text. Ends with a message where it cannot."""
    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().removesuffix("espeak-ng-data")
    if espeak.espeak_Initialize(_RETRIEVAL, 0, data.encode(), 0) != RATE:
        sys.exit(f"espeak-ng does not start, or speaks at another rate than {RATE} Hz")
    if espeak.espeak_SetVoiceByName(language.encode()) != 0:
        sys.exit(f"espeak-ng knows no language {language!r}")
    espeak.espeak_SetParameter(_RATE_PARAMETER, _WORDS_A_MINUTE, 0)
    receive = _RECEIVE(_write)
    espeak.espeak_SetSynthCallback(receive)
    text = sys.stdin.buffer.read() + b"\0"
    if espeak.espeak_Synth(text, len(text), 0, 0, 0, _UTF8, None, None) != 0 or espeak.espeak_Synchronize() != 0:
        sys.exit("espeak-ng does not say it")


_RECEIVE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def _write(samples: int | None, count: int, _: int | None) -> int:
    if samples and count > 0:
        sys.stdout.buffer.write(ctypes.string_at(samples, 2 * count))
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
