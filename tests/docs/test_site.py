"""The documentation site in a browser: every page of its contents, on a desktop and a phone."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.docs.documented import ROOT
from tests.support.browser import WIDTHS, Window

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", "-b", "html", ".", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_the_start_page_leads_to_every_page_and_fits_the_screen(browser, site, device, scheme):
    """Also writes a screenshot of the start page."""
    start = site / "docs" / "index.html"
    window = Window(browser, start, WIDTHS[device], scheme, folder=site)
    window.screenshot(f"site_{device}_{scheme}")
    links = window.tab.locator(".sidebar-tree a.internal").evaluate_all("links => links.map(link => link.href)")
    pages = [Path(unquote(urlparse(link).path)) for link in links]
    assert len(set(pages)) > 20
    for page in {start, *pages}:
        window.tab.goto(page.as_uri())
        assert window.tab.locator("h1").count() == 1, page
        assert window.fits(), page
    assert window.problems == []
    window.tab.close()
