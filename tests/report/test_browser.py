"""The report in a browser: no errors, no requests, nothing wider than the screen, working controls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import WIDTHS, Window

pytestmark = pytest.mark.browser


class Opened(Window):
    """The report in a browser window; it may load no file."""

    def __init__(self, browser: Any, page: Path, width: int, scheme: str):
        super().__init__(browser, page, width, scheme)
        self.wait_until_drawn("light" if scheme == "light" else "dark")

    def wait_until_drawn(self, scheme: str) -> None:
        self.tab.wait_for_function(f"document.documentElement.dataset.drawn === '{scheme}'")


@pytest.fixture(params=WIDTHS.values(), ids=list(WIDTHS))
def opened(request, browser, page) -> Iterator[Opened]:
    window = Opened(browser, page, request.param, "light")
    yield window
    assert window.problems == []
    assert window.tab.evaluate("window.attacked") is None
    window.tab.close()


def test_everything_is_drawn_and_fits_the_screen(opened):
    tab = opened.tab
    assert tab.locator(".plot").count() > 10
    assert tab.locator(".plot").count() == tab.locator(".plot svg").count()
    width = tab.viewport_size["width"]
    assert opened.fits()
    for section in tab.locator("main section").all():
        box = section.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
    for svg in tab.locator(".plot svg").all():
        box = svg.bounding_box()
        assert box is not None
        assert 200 < box["width"] <= width


def test_choosing_runs_hides_their_rows_and_marks(opened):
    tab = opened.tab
    boxes = tab.locator("#runs input")
    assert boxes.count() == 2
    name = boxes.nth(0).get_attribute("value")
    rows = tab.locator(f"#scores tr[data-run='{name}']")
    own, common = tab.locator("[data-figure=half_lives]"), "[data-figure=position] .mark-line path"
    assert rows.is_visible()
    assert own.is_visible()
    lines = tab.locator(common).count()
    boxes.nth(0).uncheck()
    own.wait_for(state="hidden")  # shows only this run
    assert rows.is_hidden()
    tab.wait_for_function(f"document.querySelectorAll('{common}').length === {lines - 1}")
    boxes.nth(0).check()
    own.wait_for(state="visible")
    assert rows.is_visible()
    tab.wait_for_function(f"document.querySelectorAll('{common}').length === {lines}")


def test_tables_are_sorted_by_their_headings_with_the_keyboard(opened):
    tab = opened.tab
    tab.locator("#paper summary").click()  # folded: the runs are on other data
    table = tab.locator("#paper table").first
    heading = table.locator("thead th").nth(2)
    heading.locator("button").focus()
    for key, direction, sign in (("Enter", "ascending", 1), ("Space", "descending", -1)):
        tab.keyboard.press(key)
        assert heading.get_attribute("aria-sort") == direction
        texts = [cell.split()[0].rstrip("?") for cell in table.locator("tbody tr td:nth-of-type(2)").all_inner_texts()]
        numbers = [float(text) for text in texts if text != "\N{EN DASH}"]
        assert len(numbers) > 10
        assert numbers == sorted(numbers, key=lambda number: sign * number)
        assert texts[len(numbers) :] == ["\N{EN DASH}"] * (len(texts) - len(numbers))


def test_theme_follows_the_choice(opened):
    tab = opened.tab
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.locator("#theme").select_option("dark")
    opened.wait_until_drawn("dark")
    assert tab.evaluate(ground) != light
    tab.locator("#theme").select_option("")
    opened.wait_until_drawn("light")
    assert tab.evaluate(ground) == light


def test_theme_follows_a_dark_system(browser, page):
    window = Opened(browser, page, WIDTHS["desktop"], "dark")
    assert window.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 27, 32)"
    assert window.problems == []
    window.tab.close()


def test_colours_of_passages_can_be_switched(opened):
    tab = opened.tab
    coloured = tab.locator("blockquote [class^=g], blockquote [class^=l]").first
    ground = "element => getComputedStyle(element).backgroundColor"
    before = coloured.evaluate(ground)
    tab.locator(".coloring").first.uncheck()
    assert coloured.evaluate(ground) == "rgba(0, 0, 0, 0)" != before
    tab.locator(".coloring").first.check()
    assert coloured.evaluate(ground) == before


def test_settings_show_differences_first(opened):
    tab = opened.tab
    same = tab.locator("#settings tr.same")
    assert same.count() > 5
    assert same.first.is_hidden()
    tab.locator("#all-settings").check()
    assert same.first.is_visible()


def test_tables_show_that_they_scroll_until_their_end(opened):
    tab = opened.tab
    box = tab.locator("#scores .scroll")
    scrolls = "element => [element.scrollWidth > element.clientWidth + 1, element.classList.contains('scrolls')]"
    assert box.evaluate(scrolls) == [tab.viewport_size["width"] == WIDTHS["phone"]] * 2
    if box.evaluate(scrolls)[0]:
        hint = "element => getComputedStyle(element.querySelector('caption'), '::after').content"
        assert "Scroll sideways" in box.evaluate(hint)
        mask = "element => getComputedStyle(element).maskImage"
        assert "gradient" in box.evaluate(mask)
        box.evaluate("element => { element.scrollLeft = element.scrollWidth; }")
        tab.wait_for_function("element => element.classList.contains('at-end')", arg=box.element_handle())
        assert box.evaluate(mask) == "none"
        first = box.locator("tbody th").first.bounding_box()  # the name of the row stays in sight
        assert first is not None
        assert first["x"] >= 0


def test_legends_are_whole(opened):
    tab = opened.tab
    width = tab.viewport_size["width"]
    for key in tab.locator("figure:not([hidden]) .keys span[data-run]").all():
        box = key.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
        assert key.evaluate("element => element.scrollWidth <= element.clientWidth + 1 || element.clientWidth === 0")
    for figure in tab.locator(".plot svg").all():
        outer = figure.bounding_box()
        assert outer is not None
        for label in figure.locator(".role-legend-label text").all():
            box = label.bounding_box()
            assert box is not None
            assert "\N{HORIZONTAL ELLIPSIS}" not in (label.text_content() or "")
            assert box["x"] + box["width"] <= outer["x"] + outer["width"] + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_screenshots_for_a_look(browser, page, device, scheme):
    window = Opened(browser, page, WIDTHS[device], scheme)
    window.screenshot(f"report_{device}_{scheme}")
    window.tab.close()


def test_sections_are_reached_from_the_bar(opened):
    tab = opened.tab
    for link in tab.locator("nav a").all():
        link.click()
        title = tab.locator(link.get_attribute("href")).locator("h2")
        title.wait_for()
        # Scrolled into view, and not covered by the bar.
        tab.wait_for_function(
            "title => { const y = title.getBoundingClientRect().top; return y >= 0 && y < innerHeight; }",
            arg=title.element_handle(),
        )
    tab.locator("summary").last.click()
    assert tab.locator("details").last.get_attribute("open") is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_background(browser, page, scheme):
    """The page's colours have WCAG's contrast ratio of 4.5 for text."""
    window = Opened(browser, page, WIDTHS["desktop"], scheme)
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    colours = {name: window.tab.evaluate(read, f"--{name}") for pair in _PAIRS for name in pair}
    window.tab.close()
    for ink, ground in _PAIRS:
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


_PAIRS = [
    (ink, ground) for ink in ("ink", "faint", "link") for ground in ("ground", "raised")
] + [("warn-ink", "warn-ground"), ("ok-ink", "ok-ground")]  # fmt: skip


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
