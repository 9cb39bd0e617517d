"""The pages of a large run in a real headless browser, opened from disk. Run by `pytest -m browser`; needs Chromium."""

import re

import pytest

from bench.config.facts import SUITE_FACTS
from bench.report.pages import write_report
from bench.report.paging import MOST_SAMPLES
from tests.bench.report.large import BROKEN, ERROR, PLANTED, SAMPLES, make_large

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("large")
    return write_report([make_large(place / "run")], place / "report", facts=SUITE_FACTS, progress=False).parent


@pytest.fixture
def opened(browser, folder):
    """Opens a page of the run and fails on errors, and on requests that leave the report's folder."""
    complaints, pages = [], []
    first = min((folder / "runs").glob("*.html"), key=lambda path: len(path.name))

    def open_page(number=1, rest="", **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda asked: complaints.append(f"failed: {asked.url}"))
        inside = (folder.as_uri(), "data:")
        page.on("request", lambda asked: None if asked.url.startswith(inside) else complaints.append(asked.url))
        path = first if number == 1 else first.with_suffix(f".{number}.html")
        page.goto(path.as_uri() + rest)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def shown(page):
    return page.locator(".records tbody tr:visible .id").all_inner_texts()


def until_shown(page, text):
    """Wait for what is said of a search."""
    from playwright.sync_api import expect

    expect(page.locator("#shown")).to_have_text(text)


def said(page):
    return page.inner_text("#page")


def test_the_pager_goes_on_from_page_to_page(opened):
    page = opened()
    assert said(page) == f"1–50 of {SAMPLES}"
    assert page.is_disabled("#previous")
    assert not page.is_visible("#static")
    for _ in range(MOST_SAMPLES // 50):
        page.click("#next")
    page.wait_for_url("**.2.html*")
    assert said(page) == f"{MOST_SAMPLES + 1}–{MOST_SAMPLES + 50} of {SAMPLES}"
    assert shown(page)[0] == f"s{MOST_SAMPLES}"
    page.click("#previous")
    page.wait_for_url(lambda address: ".2.html" not in address)
    assert said(page) == f"{MOST_SAMPLES - 49}–{MOST_SAMPLES} of {SAMPLES}"  # where one came from, not at its start


def test_one_may_go_to_any_page_at_once(opened):
    page = opened()
    labels = page.locator("#jump option").all_inner_texts()
    assert labels == ["s0 – s999", "s1000 – s1999", "s2000 – s2299"]
    page.select_option("#jump", label=labels[2])
    page.wait_for_url("**.3.html*")
    assert shown(page)[0] == "s2000"
    for _ in range(5):
        page.click("#next")
    assert said(page) == f"{SAMPLES - 49}–{SAMPLES} of {SAMPLES}"
    assert page.is_disabled("#next")


def test_a_filter_leads_to_the_first_page_of_its_kind_and_goes_on(opened):
    page = opened()
    page.select_option('[data-filter="outcome"]', "broken")
    page.wait_for_url("**.2.html*")
    assert page.input_value('[data-filter="outcome"]') == "broken"
    assert page.inner_text("#shown") == f"{len(BROKEN)} of {SAMPLES}"
    assert said(page) == f"1–50 of {len(BROKEN)}"
    page.click("#next")
    assert said(page) == f"51–{len(BROKEN)} of {len(BROKEN)}"
    assert page.is_disabled("#next")
    page.select_option('[data-filter="outcome"]', "error")
    page.wait_for_url("**.3.html*")
    assert shown(page) == [f"s{ERROR}"]
    page.select_option('[data-filter="outcome"]', "robust")
    page.wait_for_url(lambda address: ".3.html" not in address)
    assert said(page) == f"1–50 of {SAMPLES - len(BROKEN) - 1}"
    for _ in range(MOST_SAMPLES // 50):
        page.click("#next")
    page.wait_for_url("**.2.html*")
    assert shown(page)[0] == f"s{BROKEN[-1] + 1}"  # the broken ones before it are left out


def test_a_search_finds_samples_on_every_page(opened):
    page = opened(3)
    page.fill("#search", "Picture 15")
    until_shown(page, re.compile(" found$"))
    hits = page.locator("#hits a").all_inner_texts()
    wanted = [k for k in range(SAMPLES) if "15" in str(k)]
    assert hits == [f"s{k}" for k in wanted]
    assert page.inner_text("#shown") == f"{len(wanted)} found"
    assert not page.is_visible(".records")
    page.locator("#hits a", has_text="s150").first.click()
    page.wait_for_url("**#sample-s150")
    assert page.is_visible("#sample-s150")
    assert ".3.html" not in page.url


def test_a_search_heeds_the_filter_and_ends_when_it_is_emptied(opened):
    page = opened(2)
    page.select_option('[data-filter="outcome"]', "broken")
    page.fill("#search", "number")
    until_shown(page, f"{len(BROKEN)} found")
    assert page.locator("#hits li").count() == len(BROKEN)
    page.fill("#search", "no such words")
    until_shown(page, "0 found")
    page.fill("#search", "")
    assert not page.is_visible("#hits")
    assert said(page) == f"1–50 of {len(BROKEN)}"


def test_a_link_to_a_sample_leads_to_its_page_from_any_other(opened):
    page = opened(1, f"#sample-s{SAMPLES - 1}")
    page.wait_for_url(f"**.3.html#sample-s{SAMPLES - 1}")
    assert page.is_visible(f"#sample-s{SAMPLES - 1}")
    assert said(page) == f"{SAMPLES - 49}–{SAMPLES} of {SAMPLES}"
    box = page.locator(f"#sample-s{SAMPLES - 1}").bounding_box()
    assert 0 <= box["y"] < page.viewport_size["height"]


def test_what_is_planted_is_shown_as_text(opened):
    page = opened()
    for text in PLANTED.values():
        page.fill("#search", text)
        hits = [other for other in PLANTED.values() if text in other]
        until_shown(page, f"{len(hits)} found")
        assert page.locator("#hits a").all_inner_texts() == hits
    assert page.locator("#hits img, #hits script").count() == 0
    assert "broken out" not in page.title()


def test_without_scripts_all_samples_are_there_and_linked(opened):
    page = opened(2, java_script_enabled=False)
    assert page.locator(".records tbody tr").count() == MOST_SAMPLES
    page.click("#static >> text=next")
    page.wait_for_url("**.3.html#records")
    assert page.locator("#static").inner_text().split() == ["first", "previous", "page", "3", "of", "3"]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways(opened, width):
    page = opened(2, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.fill("#search", "bar")
    until_shown(page, re.compile("first 200 shown"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
