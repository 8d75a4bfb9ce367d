"""A headless Chromium for tests, from Debian's packages: nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from support import services


@contextmanager
def chromium(*arguments: str) -> Iterator[Chrome]:
    """A browser, with more arguments of its command line; its console is kept as the log `browser`."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        services.missing("chromium", "apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = browser
    own = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,900")
    for argument in (*own, *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()
