"""The gateway's page in a browser: a person's whole way, from a key to what was made, with real files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omnifleet_shared.schema.job_state import STATE_KEY
from selenium.webdriver import Keys
from support.data import media_files
from support.gateway.process import LONG, Gateway, new_key
from support.gateway.visitor import WAIT, Visitor, visitor
from support.scripted_fleet import ScriptedFleet

HOSTILE = '<img src=x onerror=alert(1)>\' $(id) "é";type=x.wav'
SECONDS = 6.0
"""Of a recording: it plays on until a busy machine has looked."""
SHADES = """
const picture = arguments[0].getContext('2d').getImageData(0, 0, arguments[0].width, arguments[0].height).data;
return new Set(new Uint32Array(picture.buffer)).size;
"""
COUNT_PIECES = """
window.pieces = 0;
const count = (changes) => changes.forEach((change) => (pieces += change.addedNodes.length));
new MutationObserver(count).observe(document.getElementById('answer'), {childList: true});
"""
KEEP_STEPS = """
window.seen = [];
new MutationObserver(() => seen.push(document.getElementById('steps').textContent))
    .observe(document.getElementById('steps'), {childList: true});
"""


@pytest.fixture(scope="module")
def window(omnigate: Gateway) -> Iterator[Visitor]:
    with visitor(omnigate.url) as opened:
        yield opened


@pytest.fixture
def person(window: Visitor, omnigate: Gateway) -> Iterator[Visitor]:
    """Somebody who has given a key. Whatever they do, no policy is violated and nothing fails."""
    window.enter(omnigate.key)
    yield window
    assert window.console() == []


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / HOSTILE
    path.write_bytes(media_files.wav(SECONDS))
    return path


def ask_for_rain(person: Visitor, recording: Path, steps: int = 2) -> None:
    """Fill in the form for an edit."""
    person.choose_task("edit", "add")
    person.attach("field-audio", recording)
    person.fill("field-desc", "rain")
    person.set_options(steps=steps, seed=1)


class TestFromAKeyToASound:
    def test_a_person_edits_a_recording_and_hears_it(self, window: Visitor, omnigate: Gateway, recording: Path) -> None:
        # Who has no key is asked for one, and a wrong one is refused.
        window.enter(None)
        window.wait(lambda: window.focused == "key", "the key is asked for")
        window.fill("key", "of_wrong")
        window.press(Keys.ENTER)
        window.wait(lambda: "no API key" in window.text("key-error"), "it is refused")
        window.fill("key", omnigate.key or "")
        window.press(Keys.ENTER)
        window.wait(lambda: window.is_shown("forget"), "it is accepted")
        assert window.run("return localStorage.length + document.cookie.length") == 0
        assert window.text("key-error") == ""

        # A task with a file, followed as it is done.
        ask_for_rain(window, recording, steps=40)
        window.run(KEEP_STEPS)
        window.click("send")
        window.wait_for_outcome()
        assert any(seen.startswith("Step ") for seen in window.run("return window.seen"))
        assert window.focused == "job-title"

        # Pictures of both, side by side.
        names = [one.get_attribute("aria-label") or "" for one in window.all(".panels canvas")]
        sides = ("before", "after")
        assert [one.partition(",")[0] for one in names] == [
            f"{kind} {side}" for side in sides for kind in ("Waveform", "Spectrogram")
        ]
        assert all(f"{SECONDS:.2f} s" in one for one in names)
        shades = [window.run(SHADES, one) for one in window.all(".panels canvas")]
        assert min(shades[::2]) > 1 and min(shades[1::2]) > 20  # a wave has one colour
        left, right = (one.rect for one in window.all(".panel"))
        assert left["y"] == right["y"] and left["x"] < right["x"]

        # It is heard, and what was before from the same place on.
        assert window.value("audio-after", "duration") == pytest.approx(SECONDS, abs=0.05)
        window.click("play")
        window.wait(lambda: window.value("audio-after", "currentTime") > 0.2, "it plays")
        window.pick("listen-before")
        window.wait(lambda: window.value("audio-before", "currentTime") > 0.2, "the other one plays on")
        assert window.value("audio-after", "paused") is True
        window.wait(lambda: window.text("play") == "Play", "it has ended")
        assert window.value("audio-before", "currentTime") == pytest.approx(SECONDS, abs=0.05)

        # It is on the list, and there to be kept.
        job_id = window.text("job-id")
        window.wait(lambda: job_id in window.text("jobs-body"), "it is listed")
        link = window.all("#made a")[0]
        assert link.get_attribute("download") == f"add-{job_id[:8]}.wav"
        assert str(link.get_attribute("href")).startswith("blob:")
        # Nothing that the file is called became part of the page.
        assert {one.get_attribute("src") for one in window.all("img")} == {f"{omnigate.url}/page/icon.svg"}
        assert window.console() == []

    def test_only_the_keyboard_is_needed(self, person: Visitor, recording: Path) -> None:
        person.tab_to("edit")
        person.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
        assert person.focused == "understand"
        person.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        person.tab_to("kind")
        person.press("r")
        assert person.value("kind", "value") == "remove"
        person.press(Keys.ARROW_UP)
        assert person.value("kind", "value") == "add"
        person.tab_to("field-audio")
        person.attach("field-audio", recording)  # what the browser's own dialog gives
        person.tab_to("field-desc")
        person.press(*"traffic")
        person.tab_to("send")
        person.press(Keys.SPACE)
        person.wait_for_outcome()

        assert person.focused == "job-title"
        person.tab_to("play")
        person.press(Keys.SPACE)
        person.wait(lambda: person.value("audio-after", "currentTime") > 0, "it plays")
        person.press(Keys.SPACE)
        person.wait(lambda: person.value("audio-after", "paused"), "it stopped")
        person.tab_to("position")
        person.press(Keys.HOME)
        assert person.value("audio-after", "currentTime") == 0
        person.press(Keys.ARROW_RIGHT)
        assert f"of {SECONDS:.2f} s" in str(person.get("position").get_attribute("aria-valuetext"))
        person.tab_to("listen-after")
        person.press(Keys.ARROW_LEFT)
        assert person.run("return document.querySelector('.panel.active').dataset.side") == "before"

    def test_a_voice_is_recorded_and_asked_about(self, person: Visitor) -> None:
        person.choose_task("understand", "question")
        record = person.all("[aria-label='Record recording with the microphone']")[0]
        record.click()
        person.wait(lambda: record.text.startswith("Stop (") and record.text != "Stop (0 s)", "a second was recorded")
        record.click()
        person.wait(lambda: person.value("field-audio", "files.length") == 1, "it is there")
        person.fill("field-question", "What <b>is</b> said?")
        person.set_options(max_new_tokens=2)
        person.click("send")

        person.wait_for_outcome()

        assert person.text("answer").startswith("What <b>is</b> said?")
        assert "Waveform of the recording" in str(person.all(".panels canvas")[0].get_attribute("aria-label"))
        person.click("play")
        person.wait(lambda: person.value("audio-before", "currentTime") > 0.1, "it plays")

    def test_parts_are_heard_and_read_one_by_one(self, person: Visitor) -> None:
        person.choose_task("generate", "t2m")
        person.fill("field-text", "a waltz")
        person.fill("field-seconds", "25")
        person.set_options(steps=4)
        person.click("field-stream")
        person.click("send")
        person.wait_for_outcome()
        assert len(person.all("#parts audio")) == 3
        person.wait(lambda: person.run("return document.querySelector('#parts audio').currentTime > 0"), "one plays")

        person.choose_task("understand", "question")
        person.fill("field-question", "What is it that is heard?")
        person.set_options(max_new_tokens=40)
        person.click("field-stream")
        person.run(COUNT_PIECES)
        person.click("send")
        person.wait_for_outcome()

        assert person.text("answer").startswith("What is it that is heard?")
        assert person.run("return pieces") > 1

    def test_a_job_is_cancelled(self, person: Visitor, recording: Path) -> None:
        ask_for_rain(person, recording, steps=LONG)
        person.click("send")
        person.wait(lambda: person.text("steps"), "it runs")

        person.click("cancel")

        person.wait_for_outcome("Cancelled")
        assert "cancelled" in person.text("job-error")

    def test_what_is_refused_is_said_at_its_field(self, person: Visitor, recording: Path) -> None:
        ask_for_rain(person, recording)
        person.set_options(language="xx")
        person.click("send")

        person.wait(lambda: person.text("form-error"), "it is refused")

        assert person.focused == "field-language"
        assert person.get("field-language").get_attribute("aria-invalid") == "true"


class TestOlderJobs:
    def test_the_list_leads_to_each_job_page_by_page(
        self, window: Visitor, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        caller = omnigate.with_key(new_key(fleet.settings.redis_url, "many"))
        asked = [f"Is it <i>{number}</i>?" for number in range(12)]
        ids = [caller.send(task="understand", question=one, max_new_tokens=1) for one in asked]
        caller.wait(ids[0])
        window.enter(caller.key)
        window.wait(lambda: len(window.all("#jobs-body tr")) == 10, "the newest are there")

        window.click("older")
        window.wait(lambda: len(window.all("#jobs-body tr")) == 12, "all are there")
        window.all("#jobs-body a")[-1].click()
        window.wait_for_outcome()

        assert window.text("job-id") == ids[0]
        assert window.text("answer").startswith(asked[0])
        assert window.console() == []

    def test_edited_spans_are_marked_and_places_follow_the_words(
        self, person: Visitor, omnigate: Gateway, fleet: ScriptedFleet, recording: Path
    ) -> None:
        """No scripted worker finds words: the record of an edit of sound is made that of an edit of words."""
        job_id = self._edited(omnigate, fleet, recording)
        person.open(f"/#job={job_id}&task=edit.speech")
        person.wait_for_outcome()
        person.attach("before-file", recording)
        person.wait(lambda: len(person.all(".panel")) == 2, "both are there")
        person.wait_for_outcome()

        assert [one.text for one in person.all(".spans button")] == ["0.20 s: “hello” → “<b>good</b>bye”"]
        assert len(person.all(".mark")) == 2
        labels = [one.get_attribute("aria-label") or "" for one in person.all(".panels canvas")]
        assert "edited from 0.20 s to 0.40 s" in labels[0]
        assert "edited from 0.20 s to 0.80 s" in labels[2]
        # 1.4 s of the new one is said 1.0 s into the old one: the words between are 0.4 s longer.
        person.run("document.getElementById('audio-after').currentTime = 1.4")
        person.pick("listen-before")
        assert person.value("audio-before", "currentTime") == pytest.approx(1.0, abs=0.02)

    def test_an_address_that_somebody_made_up_leads_nowhere(self, person: Visitor) -> None:
        person.open("/#job=<img src=x>&task=__proto__.toString")
        person.wait(lambda: person.is_shown("forget"), "the page is there")
        assert not person.is_shown("job")

        person.open("/#job=nobody&task=constructor.name")
        person.wait(lambda: "no job 'nobody'" in person.text("job-error"), "there is none")

    def _edited(self, omnigate: Gateway, fleet: ScriptedFleet, recording: Path) -> str:
        made = fleet.omni.edit("add", recording, desc="rain", steps=2)
        made.result(WAIT)
        redis, key = fleet.redis.client(), STATE_KEY.format(job_id=made.id)
        record: dict[str, Any] = json.loads(redis.get(key))
        span = {"start": 0.2, "end": 0.8, "source_start": 0.2, "source_end": 0.4}
        record["result"] |= {"task": "speech", "edits": [span | {"old": "hello", "new": "<b>good</b>bye"}]}
        redis.set(key, json.dumps(record))
        redis.set(f"omnifleet:gateway:tenant:{made.id}", "acme")
        return made.id


class TestCallsToCopy:
    def test_each_does_what_the_page_would(
        self, person: Visitor, omnigate: Gateway, fleet: ScriptedFleet, recording: Path
    ) -> None:
        ask_for_rain(person, recording)
        person.fill("field-desc", 'it\'s "rain" $(touch hacked) `id` \\ <b>')
        calls = {kind: person.text(f"call-{kind}") for kind in ("python", "curl", "command")}
        allowed = {"origin": omnigate.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        person.chrome.execute_cdp_cmd("Browser.grantPermissions", allowed)
        person.all("#copy-python button")[0].click()
        person.wait(lambda: person.text("announcements") == "Copied", "it is copied")
        copied = person.run("return navigator.clipboard.readText()")
        assert copied == calls["python"]

        commands = [
            [sys.executable, "-c", calls["python"]],
            ["sh", "-c", calls["curl"]],
            ["sh", "-c", calls["command"]],
        ]
        environment = os.environ | fleet.environment | {"OMNIFLEET_KEY": omnigate.key or ""}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        for command in commands:
            (recording.parent / "add.wav").unlink(missing_ok=True)
            done = subprocess.run(
                command, cwd=recording.parent, env=environment, capture_output=True, text=True, timeout=WAIT
            )
            assert done.returncode == 0, done.stdout + done.stderr
            if command[-1] == calls["curl"]:
                assert json.loads(done.stdout)["status"] == "succeeded"
            else:
                assert (recording.parent / "add.wav").is_file()
        assert not (recording.parent / "hacked").exists()


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_all_is_readable(self, person: Visitor, recording: Path, scheme: str, tmp_path: Path) -> None:
        emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        person.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
        ask_for_rain(person, recording)
        person.click("send")
        person.wait_for_outcome()
        person.wait(lambda: person.all("#jobs-body tr"), "jobs are listed")

        person.chrome.save_screenshot(str(tmp_path / "page.png"))

        if folder := os.environ.get("OMNIFLEET_TEST_SCREENSHOTS"):
            shutil.copy(tmp_path / "page.png", Path(folder) / f"{scheme}.png")
        colours = person.run(COLOURS)
        assert len(colours) > 60
        weak = [one for one in colours if contrast(one["ink"], one["ground"]) < 4.5]
        assert weak == []
        ground = person.run("return getComputedStyle(document.body).backgroundColor")
        assert (luminance(numbers(ground)) < 0.1) == (scheme == "dark")
        person.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def test_a_narrow_window_needs_no_scrolling_to_the_side(self, person: Visitor, recording: Path) -> None:
        person.chrome.set_window_size(500, 900)
        ask_for_rain(person, recording)
        person.click("send")
        person.wait_for_outcome()

        assert person.run("return document.documentElement.scrollWidth <= innerWidth")
        person.chrome.set_window_size(1600, 900)


class TestInterface:
    def test_an_example_is_sent_from_its_page(self, window: Visitor, omnigate: Gateway, recording: Path) -> None:
        window.enter(omnigate.key, "/docs")
        window.wait(lambda: len(window.all(".operation")) > 8, "the operations are there")
        paths = [one.get_property("textContent") for one in window.all(".operation > summary code")]
        assert set(omnigate.get("/openapi.json").json["paths"]) == set(map(str, paths))
        window.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")

        for name, file in (("post-v1-jobs-application-json", None), ("post-v1-jobs-multipart-form-data", "audio")):
            form = window.run("return document.querySelector(`[data-call=${arguments[0]}]`)", name)
            if file:
                window.attach(f"{name}-{file}", recording)
            button = form.find_element("css selector", "button")
            window.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
            button.click()
            answer = form.find_elements("css selector", "pre")[-1]
            window.wait(lambda answer=answer: answer.text.startswith("202 application/json"), "it is answered")
        assert window.console() == []


COLOURS = """
const shown = [...document.querySelectorAll('body *')].filter((one) =>
    [...one.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()) && one.checkVisibility()
    && !one.closest('.unseen, .skip, .mark, option') && !one.disabled);
return shown.map((one) => {
    let behind = one;
    while (behind && /^rgba\\(.*, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    return {text: one.textContent.trim().slice(0, 40), ink: getComputedStyle(one).color,
        ground: getComputedStyle(behind ?? document.body).backgroundColor};
});
"""


def numbers(colour: str) -> tuple[float, ...]:
    """Red, green and blue, 0 to 255."""
    if colour.startswith("color(srgb "):
        return tuple(float(one) * 255 for one in colour[len("color(srgb ") : -1].split())
    assert colour.startswith("rgb("), colour
    return tuple(float(one) for one in colour[4:-1].split(","))


def luminance(colour: tuple[float, ...]) -> float:
    """As WCAG 2 defines it."""
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in (c / 255 for c in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(numbers(one)), luminance(numbers(other))))
    return (lighter + 0.05) / (darker + 0.05)
