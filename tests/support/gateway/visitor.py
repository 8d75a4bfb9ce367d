"""A person at the gateway's page: a headless browser, and what people do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from support import browser, services

WAIT = 240.0
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""A microphone that beeps, and that everybody may use."""
FINAL = ("Done", "Failed", "Cancelled")
LONGEST_WAY = 80
"""Presses of Tab."""


class Visitor:
    """Looks at one gateway in one tab.

    Args:
        chrome: the browser.
        url: of the gateway.
    """

    def __init__(self, chrome: Chrome, url: str) -> None:
        self.chrome = chrome
        self._url = url

    def enter(self, key: str | None, path: str = "/") -> None:
        """Open a page anew, with a key that was given before."""
        self.chrome.get(f"{self._url}/livez")
        self.run("sessionStorage.clear(); if (arguments[0]) sessionStorage.setItem('omnifleet-key', arguments[0])", key)
        self.open(path)
        if key is not None and path.startswith("/") and not path.startswith("/docs"):
            self.wait(lambda: self.is_shown("forget"), "the key is accepted")

    def open(self, path: str = "/") -> None:
        """Open a page; what the console said before is forgotten."""
        self.chrome.get("about:blank")
        self.console()
        self.chrome.get(f"{self._url}{path}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def of_module(self, name: str, expression: str, *arguments: Any) -> Any:
        """What an expression of `module`, one of the page's, and `given` comes to, be it a promise or not."""
        script = (
            f"const done = arguments[arguments.length - 1], given = arguments;"
            f"import('/page/{name}').then((module) => {expression}).then(done, (error) => done(String(error)))"
        )
        return self.chrome.execute_async_script(script, *arguments)  # type: ignore[no-untyped-call]

    def get(self, name: str) -> WebElement:
        """The element of that id."""
        return self.chrome.find_element(By.ID, name)

    def all(self, selector: str) -> list[WebElement]:
        return self.chrome.find_elements(By.CSS_SELECTOR, selector)

    def text(self, name: str) -> str:
        return str(self.get(name).get_property("textContent"))

    def value(self, name: str, attribute: str) -> Any:
        """A property of an element, such as `paused`."""
        return self.run(f"return document.getElementById(arguments[0])?.{attribute} ?? null", name)

    def is_shown(self, name: str) -> bool:
        return bool(self.all(f"#{name}")) and self.get(name).is_displayed()

    @property
    def focused(self) -> str:
        """The id of the element that has the focus."""
        return str(self.run("return document.activeElement.id"))

    def click(self, name: str) -> None:
        """Click what is labelled by its name, or else the element itself."""
        labels = self.all(f"label[for='{name}']")
        target = labels[0] if labels and not self.get(name).is_displayed() else self.get(name)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", target)
        target.click()

    def pick(self, name: str) -> None:
        """Pick a radio button by its label, which is what is seen of it."""
        label = self.all(f"label[for='{name}']")[0]
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", label)
        label.click()

    def fill(self, name: str, text: str) -> None:
        field = self.get(name)
        field.clear()
        field.send_keys(text)

    def attach(self, name: str, *files: Path) -> None:
        self.get(name).send_keys("\n".join(map(str, files)))

    def choose_task(self, namespace: str, name: str) -> None:
        self.pick(namespace)
        self.all(f"#kind option[value='{name}']")[0].click()

    def set_options(self, **options: object) -> None:
        """Fill in fields among the options."""
        self.run("document.querySelector('details').open = true")
        for name, value in options.items():
            self.fill(f"field-{name}", str(value))

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.chrome).send_keys(key).perform()

    def tab_to(self, name: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(LONGEST_WAY):
            if self.focused == name:
                return
            self.press(Keys.TAB)
        raise AssertionError(f"Tab does not lead to {name}")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        services.wait_until(lambda: bool(condition()), WAIT, what)

    def wait_for_outcome(self, status: str = "Done") -> None:
        """Until the job that is shown has this outcome, and its pictures are drawn where it has any."""
        self.wait(lambda: self.text("send") == "Send", "it is sent")  # until then the job before is shown, and its end
        self.wait(lambda: self.text("status") in FINAL or self.text("form-error"), f"the job is {status}")
        assert (self.text("status"), self.text("form-error")) == (status, ""), self.text("job-error")
        self.wait(lambda: self.value("job", "dataset.shown") == self.text("job-id"), "all of it is shown")
        self.wait(lambda: not self.all(".comparison:not([data-drawn])"), "pictures are drawn")

    def console(self) -> list[str]:
        """What the console said since, without the gateway's answers that are refusals."""
        said = [str(line["message"]) for line in self.chrome.get_log("browser")]  # type: ignore[no-untyped-call]
        return [line for line in said if "responded with a status of 4" not in line]


@contextmanager
def visitor(url: str) -> Iterator[Visitor]:
    """Open a browser."""
    with browser.chromium(*MICROPHONE) as chrome:
        chrome.set_script_timeout(WAIT)
        yield Visitor(chrome, url)
