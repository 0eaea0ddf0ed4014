"""Pages in headless Chromium: at the widths of a desktop and a phone, with all problems that the browser reports."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = {"desktop": 1280, "phone": 390}
_PATIENCE = 120_000  # milliseconds; a busy machine is slow, not wrong


class Window:
    """A page in a browser window, with all problems.

    Attributes:
        tab: Playwright's page.
        problems: console warnings and errors, uncaught errors, and requests for what lies outside of the folder.

    Args:
        browser: of `chromium`.
        page: file to open.
        width: of the screen, in pixels.
        scheme: "light" or "dark".
        folder: folder from which the page may load files; None if it may load none.
    """

    def __init__(self, browser: Any, page: Path, width: int, scheme: str, folder: Path | None = None):
        self.problems: list[str] = []
        still = {"color_scheme": scheme, "reduced_motion": "reduce"}  # no smooth scrolling to wait for
        self.tab = browser.new_page(viewport={"width": width, "height": 900}, **still)
        self.tab.set_default_timeout(_PATIENCE)
        self.tab.on("console", self._on_console)
        self.tab.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self._own = ("data:", "blob:", page.as_uri(), *([] if folder is None else [f"{folder.as_uri()}/"]))
        self.tab.on("request", lambda request: self._on_request(request.url))
        self.tab.goto(page.as_uri())

    def fits(self) -> bool:
        """Returns whether the page is as wide as the screen at most."""
        return self.tab.evaluate("document.documentElement.scrollWidth") <= self.tab.viewport_size["width"]

    def screenshot(self, name: str) -> None:
        """Writes a picture of the whole page; git ignores the folder."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}.png"
        self.tab.screenshot(path=file, full_page=True)
        assert file.stat().st_size > 50_000, f"{file}: an empty page"

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _on_request(self, url: str) -> None:
        if not url.startswith(self._own):
            self.problems.append(f"request: {url}")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Starts the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        assert CHROMIUM, "there is no chromium: `make test-browser` installs it"
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"])
        yield started
        started.close()
