"""The pages as they are served: to everybody, safe, whole, and only where they are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from omnifleet.gateway.app import create_app
from omnifleet.gateway.middleware.metrics import GatewayMetrics
from omnifleet.gateway.page.routes import FOLDER, PAGES, PATHS
from omnifleet.gateway.settings import GatewaySettings
from starlette.testclient import TestClient

FILES = sorted(FOLDER.iterdir())
MOST_LINES = 350


def client(**settings: bool) -> TestClient:
    """A caller without a key of a gateway with keys; nothing behind it is opened."""
    return TestClient(create_app(GatewaySettings(**settings), GatewayMetrics(), with_keys=True))


@pytest.fixture(scope="module")
def everybody() -> Iterator[TestClient]:
    with_pages = client()
    yield with_pages
    with_pages.close()


class Elements(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text_of: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.text_of[self._inside] = self.text_of.get(self._inside, "") + data


class TestServing:
    @pytest.mark.parametrize("path", sorted(PATHS))
    def test_everybody_is_served_under_the_policy(self, everybody: TestClient, path: str) -> None:
        answer = everybody.get(path)

        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        again = everybody.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code in (200, 304)

    @pytest.mark.parametrize(
        ("suffix", "kind"), [(".js", "javascript"), (".css", "text/css"), (".svg", "image/svg+xml")]
    )
    def test_files_have_the_types_without_which_browsers_refuse_them(
        self, everybody: TestClient, suffix: str, kind: str
    ) -> None:
        for file in FILES:
            if file.suffix == suffix:
                assert kind in everybody.get(f"/page/{file.name}").headers["content-type"]

    @pytest.mark.parametrize("path", ["/page/", "/page", "/page/../routes.py", "/page/%2e%2e/routes.py", "/page/x.js"])
    def test_nothing_else_is_served(self, everybody: TestClient, path: str) -> None:
        assert everybody.get(path).status_code == 401

    def test_pages_are_read_and_not_written(self, everybody: TestClient) -> None:
        assert everybody.head("/").status_code == 200
        assert everybody.post("/").status_code == 405

    @pytest.mark.parametrize("path", sorted(PATHS))
    def test_they_can_be_left_out(self, path: str) -> None:
        without = client(gateway_page=False)

        assert without.get(path).status_code == 401
        without.close()

    def test_they_are_not_part_of_the_interface(self, everybody: TestClient) -> None:
        assert not set(everybody.get("/openapi.json").json()["paths"]) & PATHS


class TestWhatTheyAreMadeOf:
    @pytest.mark.parametrize("name", sorted(PAGES.values()))
    def test_a_page_holds_no_script_and_no_style_of_its_own(self, name: str) -> None:
        page = Elements((FOLDER / name).read_text())

        for tag, attributes in page.found:
            assert not [one for one in attributes if one.startswith("on") or one == "style"], tag
        assert "style" not in page.text_of
        assert page.text_of.get("script", "").strip() == ""

    @pytest.mark.parametrize("name", sorted(PAGES.values()))
    def test_a_page_names_files_that_are_there(self, name: str, everybody: TestClient) -> None:
        page = Elements((FOLDER / name).read_text())
        addresses = [
            value
            for _, attributes in page.found
            for key, value in attributes.items()
            if key in ("src", "href") and value
        ]

        assert len(addresses) > 4
        for address in addresses:
            local = address.removeprefix("./").partition("#")[0]
            assert everybody.get(f"/{local}").status_code == 200

    @pytest.mark.parametrize("name", sorted(PAGES.values()))
    def test_every_control_has_a_label(self, name: str) -> None:
        page = Elements((FOLDER / name).read_text())
        labelled = {attributes.get("for") for tag, attributes in page.found if tag == "label"}

        controls = [attributes for tag, attributes in page.found if tag in ("input", "select", "textarea")]
        assert [one["id"] for one in controls if one.get("id") not in labelled and "aria-label" not in one] == []

    @pytest.mark.parametrize("file", [file for file in FILES if file.suffix != ".svg"], ids=lambda file: file.name)
    def test_nothing_comes_from_elsewhere(self, file: object) -> None:
        assert re.findall(r"https?://", str(file.read_text())) == []  # type: ignore[attr-defined]

    @pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".js"], ids=lambda file: file.name)
    def test_a_module_is_of_a_readable_size_and_imports_what_is_there(self, file: object) -> None:
        text = str(file.read_text())  # type: ignore[attr-defined]

        assert text.count("\n") <= MOST_LINES
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert (FOLDER / imported).is_file()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|localStorage", text
        )
