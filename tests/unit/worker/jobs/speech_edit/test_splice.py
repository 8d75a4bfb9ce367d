"""Splicing: outside the edited spans every sample is the source's own, whatever the spans, lengths, rates, channels."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.jobs.speech_edit.splice import FADE_SECONDS, SEEK_SECONDS, Patch, Samples, Span, splice, widen
from omnifleet_worker.media.decode import decode_audio
from omnifleet_worker.media.encode import Subtype, encode_samples, exact_subtype
from support.data import media_files


def noise(channels: int, length: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-1, 1, (channels, length))


@st.composite
def patched(draw: st.DrawFn) -> tuple[Samples, list[Patch]]:
    """A source and patches in it, as an editor makes them: holes in rooms of their own."""
    rate = draw(st.sampled_from([8_000, 16_000, 44_100, 48_000]))
    channels, length = draw(st.integers(1, 3)), draw(st.integers(1, rate))
    source = noise(channels, length)
    points = sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=8)))
    gaps = list(zip(points[::2], points[1::2], strict=False))
    borders = [0, *((one[1] + following[0]) // 2 for one, following in pairwise(gaps)), length]
    patches = []
    for number, (gap, room) in enumerate(zip(gaps, pairwise(borders), strict=True)):
        span = widen(source, rate, gap, room)
        new = draw(st.none() | st.integers(0, rate // 2))
        size = None if new is None else new + span.fade_in + span.fade_out
        patches.append(Patch(span, None if size is None else noise(channels, size, number + 1)))
    return source, patches


@given(patched())
def test_outside_the_spans_every_sample_is_the_sources_own(case: tuple[Samples, list[Patch]]) -> None:
    source, patches = case

    result, places = splice(source, patches)

    kept_in_source = pairwise(
        [0, *(edge for patch in patches for edge in (patch.span.start, patch.span.end)), source.shape[1]]
    )
    kept_in_result = pairwise([0, *(edge for place in places for edge in place), result.shape[1]])
    for (begin, end), (first, last) in list(zip(kept_in_source, kept_in_result, strict=True))[::2]:
        np.testing.assert_array_equal(result[:, first:last], source[:, begin:end])
    for patch, place in zip(patches, places, strict=True):
        expected = min(patch.span.fade_in, patch.span.fade_out) if patch.material is None else patch.material.shape[1]
        assert place[1] - place[0] == expected


@given(patched())
def test_a_span_covers_its_hole_and_little_more(case: tuple[Samples, list[Patch]]) -> None:
    source, patches = case

    for patch in patches:
        span = patch.span
        assert 0 <= span.start <= span.gap[0] <= span.gap[1] <= span.end <= source.shape[1]


def test_a_span_begins_and_ends_at_zero_crossings_with_fades_of_20_ms() -> None:
    source = media_files.tone(1.0, 8_000, hertz=110).astype(np.float64)

    span = widen(source, 8_000, (3_000, 5_000), (0, 8_000))

    for edge in (span.start, span.end):
        assert np.signbit(source[0, edge - 1]) != np.signbit(source[0, edge]) or source[0, edge] == 0
    assert (span.fade_in, span.fade_out) == (160, 160)
    widest = round((FADE_SECONDS + SEEK_SECONDS) * 8_000)
    assert 3_000 - widest <= span.start <= 3_000 - 160
    assert 5_000 + 160 <= span.end <= 5_000 + widest


def test_the_crossfade_has_equal_power() -> None:
    source, material = np.ones((1, 1000)), np.zeros((1, 400))
    span = Span(100, 500, fade_in=160, fade_out=160)

    there, _ = splice(source, [Patch(span, material)])
    back, _ = splice(1 - source, [Patch(span, 1 - material)])

    np.testing.assert_allclose(there[:, 100:260] ** 2 + back[:, 100:260] ** 2, 1)
    np.testing.assert_allclose(there[:, 340:500] ** 2 + back[:, 340:500] ** 2, 1)


def test_what_is_alike_on_both_sides_is_no_louder_in_between() -> None:
    source = noise(2, 1000)
    span = Span(100, 500, fade_in=160, fade_out=160)

    replaced, _ = splice(source, [Patch(span, source[:, 100:500])])
    cut, _ = splice(np.tile(source[:, :250], 4), [Patch(Span(100, 610, fade_in=10, fade_out=10), None)])

    np.testing.assert_allclose(replaced, source, atol=1e-12)
    np.testing.assert_allclose(cut[:, 100:110], source[:, 100:110], atol=1e-12)


def test_at_the_recordings_ends_there_is_nothing_to_fade_with() -> None:
    span = widen(noise(1, 8_000), 8_000, (0, 8_000), (0, 8_000))

    result, places = splice(noise(1, 8_000), [Patch(span, np.full((1, 5), 0.5))])

    assert span == Span(0, 8_000, 0, 0)
    assert places == [(0, 5)]
    np.testing.assert_array_equal(result, np.full((1, 5), 0.5))


SOURCES = {"wav": "PCM_16", "wav-u8": "PCM_16", "wav-24": "PCM_24", "wav-32": "PCM_32", "wav-float": "FLOAT",
           "wav-double": "DOUBLE", "flac": "PCM_16", "flac-24": "PCM_24"}  # fmt: skip


def decoded(data: bytes) -> Samples:
    return decode_audio(data, exact=True).samples.astype(np.float64)


@pytest.mark.parametrize("format", SOURCES)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 2), (44_100, 6)])
def test_every_lossless_source_comes_through_wav_bit_for_bit(format: str, rate: int, channels: int) -> None:
    data = media_files.encode(format, noise(channels, 3_000) * 0.999, rate)
    samples = decoded(data)
    np.testing.assert_array_equal(samples.T, soundfile.read(io.BytesIO(data), always_2d=True)[0])

    subtype = exact_subtype(samples)

    assert subtype == SOURCES[format]
    file = encode_samples(samples, rate, "wav", subtype)
    assert soundfile.info(io.BytesIO(file)).subtype == subtype
    np.testing.assert_array_equal(decoded(file), samples)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_holds_16_and_24_bits(subtype: Subtype) -> None:
    samples = decoded(encode_samples(noise(2, 3_000), 48_000, "wav", subtype))

    file = encode_samples(samples, 48_000, "flac", subtype)

    assert soundfile.info(io.BytesIO(file)).subtype == subtype
    np.testing.assert_array_equal(decoded(file), samples)


@pytest.mark.parametrize("subtype", ["PCM_32", "FLOAT", "DOUBLE"])
def test_flac_rounds_what_is_wider_to_24_bits(subtype: Subtype) -> None:
    samples = noise(1, 3_000)

    again = decoded(encode_samples(samples, 8_000, "flac", subtype))

    assert np.abs(again - samples).max() <= 2.0**-23


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32"])
def test_what_is_too_loud_for_integers_is_clipped_and_the_full_range_kept(subtype: Subtype) -> None:
    again = decoded(encode_samples(np.array([[-2.0, -1.0, 1.0, 2.0, 0.0]]), 8_000, "wav", subtype))

    assert again.min() == -1.0
    assert 1 - 2.0**-15 <= again.max() < 1
    assert exact_subtype(again) == subtype


def test_a_peak_of_one_needs_a_float_format() -> None:
    assert exact_subtype(np.array([[1.0, -1.0]])) == "FLOAT"
    assert exact_subtype(np.array([[0.1]])) == "DOUBLE"
    assert exact_subtype(np.zeros((2, 0))) == "PCM_16"


def test_lossy_formats_keep_rate_and_channels() -> None:
    for format in ("mp3", "ogg"):
        audio = decode_audio(
            encode_samples(media_files.tone(0.5, 16_000, 2).astype(np.float64), 16_000, format, "FLOAT")
        )  # type: ignore[arg-type]

        assert (audio.sample_rate, len(audio.samples)) == (16_000, 2)


def test_a_format_that_cannot_hold_it_is_refused_by_name() -> None:
    with pytest.raises(InvalidJob, match="mp3 cannot hold 6 channels"):
        encode_samples(noise(6, 100), 48_000, "mp3", "PCM_16")
