"""Pictures of recordings: what sounds is bright where it sounds, and what changed is marked."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from omnifleet.cli import app
from omnifleet.pictures.recordings import Recording, changed_spans
from omnifleet.pictures.spectrogram import _MARK, BELOW, HEIGHT, LEFT, TOP, WIDTH, Panel, draw_spectrograms
from omnifleet.testing import FakeClient
from omnifleet_shared.schema.results import EditedSpan
from PIL import Image
from typer.testing import CliRunner, Result

RATE = 16_000


def tone(*parts: tuple[float, float], rate: int = RATE) -> Recording:
    """Tones one after the other: hertz and seconds of each."""
    waves = [0.5 * np.sin(2 * np.pi * hertz * np.arange(round(length * rate)) / rate) for hertz, length in parts]
    return Recording(np.concatenate(waves).astype(np.float32)[:, None], rate)


def draw(*panels: Panel) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(draw_spectrograms(panels))).convert("RGB"))


def spectrogram(picture: NDArray[np.uint8], panel: int = 0) -> NDArray[np.int64]:
    """Brightness [HEIGHT, WIDTH] of a panel."""
    top = panel * (TOP + HEIGHT + BELOW) + TOP
    return picture[top : top + HEIGHT, LEFT : LEFT + WIDTH].astype(np.int64).sum(axis=2)


def row_of(hertz: float, rate: int = RATE) -> float:
    """The row at which the mel scale has a frequency; the lowest is at the bottom."""
    return HEIGHT * (1 - np.log1p(hertz / 700) / np.log1p(rate / 2 / 700))


@pytest.mark.parametrize("hertz", [200, 1000, 3000, 7000])
def test_a_tone_is_brightest_at_its_frequency(hertz: float) -> None:
    shown = spectrogram(draw(Panel("a tone", tone((hertz, 2.0)))))

    assert np.median(shown[:, 100:-100].argmax(axis=0)) == pytest.approx(row_of(hertz), abs=4)


def test_time_goes_to_the_right() -> None:
    shown = spectrogram(draw(Panel("two tones", tone((1000, 1.0), (4000, 3.0)))))

    rows = shown.argmax(axis=0)
    assert np.median(rows[20 : WIDTH // 4 - 20]) == pytest.approx(row_of(1000), abs=4)
    assert np.median(rows[WIDTH // 4 + 20 : -20]) == pytest.approx(row_of(4000), abs=4)


def test_all_panels_have_one_scale() -> None:
    picture = draw(Panel("before", tone((1000, 4.0))), Panel("after", tone((1000, 1.0), rate=8_000)))

    first, second = (spectrogram(picture, number) for number in range(2))
    assert np.median(second[:, 50 : WIDTH // 4 - 50].argmax(axis=0)) == pytest.approx(row_of(1000), abs=4)
    assert np.median(first[:, 50:-50].argmax(axis=0)) == pytest.approx(row_of(1000), abs=4)
    assert second[:, WIDTH // 4 + 2 :].min() == 750  # after its end there is paper


def test_silence_is_black_and_no_error() -> None:
    silent = Recording(np.zeros((RATE, 2), np.float32), RATE)

    assert spectrogram(draw(Panel("silence", silent), Panel("tone", tone((1000, 1.0)))), 0).max() < 10


def test_spans_are_marked_where_they_are() -> None:
    picture = draw(Panel("marked", tone((1000, 4.0)), [(1.0, 2.0)]))

    bar = (picture[TOP - 8] == _MARK).all(axis=1)
    assert (np.flatnonzero(bar)[0], np.flatnonzero(bar)[-1]) == (LEFT + WIDTH // 4, LEFT + WIDTH // 2)
    lines = (picture[TOP + 5 : TOP + HEIGHT - 5] == _MARK).all(axis=(0, 2))
    assert list(np.flatnonzero(lines)) == [LEFT + WIDTH // 4, LEFT + WIDTH // 2]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 3))
def test_what_changed_is_found(before: int, after: int, old: int, new: int, channels: int) -> None:
    def samples(count: int, value: float) -> NDArray[np.float32]:
        return np.full((count, channels), value, np.float32)

    head, tail = samples(before, 0.1), samples(after, 0.2)
    one = Recording(np.concatenate([head, samples(old, 0.3), tail]), 100)
    other = Recording(np.concatenate([head, samples(new, 0.4), tail]), 100)

    found = changed_spans(one, other)

    if old + new == 0 or before + after == 0:
        assert found is None
    else:
        assert found == ((before / 100, (before + old) / 100), (before / 100, (before + new) / 100))


def test_recordings_of_other_forms_have_nothing_in_common() -> None:
    assert changed_spans(tone((100, 1.0)), tone((100, 1.0), rate=8_000)) is None


class TestCommand:
    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with a recording, and the same with half a second of another tone in it."""
        monkeypatch.chdir(tmp_path)
        # Whole numbers: wav and flac round others each in its own way.
        before, other = ((one.samples * 32_767).astype(np.int16) for one in (tone((1000, 3.0)), tone((3000, 0.5))))
        soundfile.write("before.wav", before, RATE)
        soundfile.write("after.flac", np.concatenate([before[:RATE], other, before[RATE:]]), RATE)
        return tmp_path

    def run(self, *arguments: str, omni: FakeClient | None = None) -> Result:
        return CliRunner().invoke(app, ["spectrogram", *arguments], obj=omni)

    def marks(self) -> list[int]:
        """Columns of the picture that the bars above both panels begin and end at."""
        picture = np.array(Image.open("edit.png"))
        bars = [(picture[top - 8] == _MARK).all(axis=1) for top in (TOP, 2 * TOP + HEIGHT + BELOW)]
        return [int(place) for bar in bars for place in np.flatnonzero(bar)[[0, -1]]]

    def test_what_changed_is_marked_in_both(self, here: Path) -> None:
        done = self.run("before.wav", "after.flac", "-o", "edit.png")

        assert (done.exit_code, done.stdout) == (0, "edit.png\n")
        second = WIDTH / 3.5
        assert self.marks()[2:] == pytest.approx([LEFT + second, LEFT + 1.5 * second], abs=2)

    def test_a_job_says_what_it_changed(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        omni = FakeClient()
        job = omni.edit("Speech", "before.wav", desc="delete 'a'")
        span = EditedSpan(start=0.5, end=1.0, source_start=2.0, source_end=3.0, old="a", new="")
        state = omni.fleet._states[job.id]
        assert state.result is not None
        changed = state.result.model_copy(update={"edits": (span,)})
        omni.fleet._states[job.id] = replace(state, result=changed)

        done = self.run("before.wav", "after.flac", "-o", "edit.png", "--job", job.id, omni=omni)

        assert done.exit_code == 0, done.output
        second = WIDTH / 3.5
        expected = [LEFT + at * second for at in (2.0, 3.0, 0.5, 1.0)]
        assert self.marks() == pytest.approx(expected, abs=2)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("before.wav", "nowhere.wav", "-o", "x.png"), "MediaNotFound: after: there is no file"),
            (("before.wav", "after.flac", "-o", "x.jpg"), "no picture is written as '.jpg'"),
            (("before.wav", "after.flac", "-o", "nowhere/x.png"), "there is no folder 'nowhere'"),
            (("text.wav", "after.flac", "-o", "x.png"), "MediaUnreadable: before: 'text.wav' cannot be read"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, here: Path, arguments: tuple[str, ...], problem: str) -> None:
        Path("text.wav").write_text("no sound")

        done = self.run(*arguments)

        assert done.exit_code == 2
        assert problem in done.stderr
        assert not Path("x.png").exists()

    def test_a_job_that_edited_no_words_is_refused(self, here: Path) -> None:
        omni = FakeClient()
        job = omni.generate("t2a", "rain")

        done = self.run("before.wav", "after.flac", "-o", "x.png", "--job", job.id, omni=omni)

        assert done.exit_code == 2 and "the job edited no words" in done.stderr
