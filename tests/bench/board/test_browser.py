"""The board in a real headless browser, opened from disk. Run by `pytest -m browser`; needs Chromium."""

import pytest

from tests.bench.board.site import make_site

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("board")).parent


@pytest.fixture
def opened(browser, site):
    """Opens a page and fails on console errors, failed requests, and requests that leave the board's folder."""
    complaints, pages = [], []

    def open_page(name, fragment="", **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        inside = (site.as_uri(), "data:")
        page.on("request", lambda asked: None if asked.url.startswith(inside) else complaints.append(asked.url))
        page.goto(next(site.rglob(f"{name}*.html")).as_uri() + fragment)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def order(page):
    return page.eval_on_selector_all("#board tbody tr:not([hidden])", "rows => rows.map(row => row.id)")


def test_the_ranking_sorts_by_any_column(opened):
    page = opened("vqa")
    ranked = order(page)
    assert ranked[:2] == ["encoder-fare4", "encoder-tecoa4"]
    page.click("#board th:nth-child(2) button")
    assert order(page) == sorted(ranked)
    page.click("#board thead th:first-child button")
    assert order(page) == ranked[::-1]  # numbers begin with the highest: the last rank


def test_the_ranking_is_searched(opened):
    page = opened("vqa")
    page.fill("#search", "tecoa")
    assert order(page) == ["encoder-tecoa4"]
    assert page.inner_text("#shown") == "1 of 4"


def test_two_encoders_are_compared_and_the_address_keeps_the_choice(opened):
    page = opened("vqa")
    page.select_option("#first", "clip")
    page.select_option("#second", "fare4")
    cells = page.eval_on_selector_all("#pair tbody tr:last-child td", "found => found.map(cell => cell.textContent)")
    assert cells == ["4/255", "25.0", "75.0", "+50.0", "0", "2", "4"]
    assert page.url.endswith("#compare=clip,fare4")
    again = opened("vqa", "#compare=clip,fare4")
    assert again.input_value("#first") == "clip"
    assert again.input_value("#second") == "fare4"


def test_a_link_leads_to_an_encoder_and_from_there_to_its_entry(opened):
    page = opened("vqa", "#encoder-clip")
    assert page.eval_on_selector(":target", "row => row.cells[1].textContent").strip().endswith("link")
    page.click("#encoder-clip th a")
    assert "entries/" in page.url
    assert page.locator("section:target").count() == 1


@pytest.mark.parametrize("name", ["index", "vqa", "0-"])
def test_a_phone_shows_everything_without_scrolling_sideways(opened, name):
    page = opened(name, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
