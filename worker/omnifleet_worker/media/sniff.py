"""Names of formats that are not read, by their first bytes, so that a refusal can say what was sent."""

from __future__ import annotations

_NAMES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"MThd", "MIDI, which is notes and no sound"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b".RMF", "RealMedia"),
    (0, b".snd", "Sun audio"),
    (0, b"#!SILK", "SILK"),
    (1, b"#!SILK", "SILK"),
    (0, b"OpusHead", "bare Opus packets"),
    (0, b"#EXTM3U", "a playlist"),
    (0, b"[playlist]", "a playlist"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive or office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x89PNG", "a picture (PNG)"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (0, b"GIF8", "a picture (GIF)"),
    (8, b"WEBP", "a picture (WebP)"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"{", "JSON text"),
)


def name_of(data: bytes) -> str | None:
    """Name a known format that is not read; None where the bytes tell nothing."""
    head = data[:64]
    return next((name for at, magic, name in _NAMES if head[at : at + len(magic)].upper() == magic.upper()), None)
