"""The report in a real headless browser, opened from disk. Run by `pytest -m browser`; needs Chromium."""

import pytest

from bench.config.facts import SUITE_FACTS
from bench.records.samples import Asked, write_samples
from bench.report.pages import write_report
from tests.bench.report.site import HOSTILE, SCRIPT, copy_site, make_site
from tests.bench.runs import make_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    return copy_site(make_site(folder), folder / "moved to another place")


@pytest.fixture(params=["index", "run"])
def address(request, site):
    path = site if request.param == "index" else next((site.parent / "runs").glob("clip_mini-sketch*"))
    return path.as_uri()


@pytest.fixture
def opened(browser, site):
    """Opens a page and fails on console errors, failed requests, and requests that leave the report's folder."""
    complaints = []
    pages = []

    def open_page(address, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((site.parent.as_uri(), "data:"))
                else complaints.append(f"outside: {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def _column(page, table, index):
    return page.eval_on_selector_all(
        f"{table} tbody tr",
        f"rows => rows.map(row => row.cells[{index}].dataset.value ?? row.cells[{index}].innerText)",
    )


def test_tables_sort_both_ways_by_mouse_and_keyboard(opened, site):
    page = opened(site.as_uri())
    table = 'table[data-layout="robustness"]'
    head = page.locator(f'{table} th[data-sort="3"] button')
    head.click()
    values = [float(value) for value in _column(page, table, 3)]
    assert values == sorted(values, reverse=True)
    assert values[0] != values[-1]
    assert page.get_attribute(f'{table} th[data-sort="3"]', "aria-sort") == "descending"
    head.focus()
    page.keyboard.press("Enter")
    assert [float(value) for value in _column(page, table, 3)] == values[::-1]
    page.locator(f'{table} th[data-sort="0"] button').click()
    names = _column(page, table, 0)
    assert names == sorted(names)
    assert page.locator(f"{table} th[aria-sort]").count() == 1


def test_what_was_not_measured_stays_last(opened, site):
    page = opened(site.as_uri())
    table = 'table[data-layout="robustness"]'
    for _ in range(2):
        page.locator(f'{table} th[data-sort="2"] button').click()
        values = _column(page, table, 2)
        assert [value == "" for value in values] == [False, False, False, True]


def test_the_gallery_is_filtered_by_outcome(opened, site):
    page = opened(site.as_uri())
    cards = page.locator(".card:visible")
    everything = cards.count()
    assert everything == 12
    page.select_option('[data-filter="outcome"]', "robust")
    robust = cards.count()
    assert 0 < robust < everything
    assert page.locator(".card:visible .outcome").all_inner_texts() == ["robust"] * robust
    assert page.inner_text("#shown") == f"{robust} of {everything}"
    page.select_option('[data-filter="encoder"]', HOSTILE)
    assert cards.count() == 0
    assert page.is_visible("#nothing")


def test_records_are_filtered_by_outcome(opened, site):
    page = opened(next((site.parent / "runs").glob("clip_mini-sketch*")).as_uri())
    rows = page.locator(".records tbody tr:visible")
    assert rows.count() == 14
    page.select_option('[data-filter="outcome"]', "broken")
    assert 0 < rows.count() < 14
    assert page.locator('.records tbody tr:visible:not([data-outcome="broken"])').count() == 0


def test_all_images_load(opened, address):
    page = opened(address)
    page.eval_on_selector_all("img", "images => images.forEach(image => { image.loading = 'eager'; })")
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) >= 12
    assert set(widths) == {48}


def test_a_caption_with_a_script_is_shown_as_text(opened, site):
    page = opened(site.as_uri())
    assert page.title() == "Robustness report"
    assert page.locator("q", has_text=SCRIPT).count() == 1
    assert page.locator("tbody th", has_text=HOSTILE).count() > 0
    other = opened(next((site.parent / "runs").glob("clip_mini-sketch*")).as_uri())
    assert other.locator("q", has_text=SCRIPT).count() == 1
    assert "broken out" not in page.title() + other.title()


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_no_width_scrolls_sideways(opened, address, width):
    page = opened(address, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        "[...document.querySelectorAll('main > *, section > *, .panel, .card')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def _luminance(colour):
    """Relative luminance of "rgb(r, g, b)" (WCAG 2.2)."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(opened, site, scheme):
    page = opened(site.as_uri(), color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (_luminance(ground) > 0.5) == (scheme == "light")
    for selector in ("body", ".lede", ".hint", ".interval", "td.number a", "main a", ".outcome", ".chart"):
        colour = page.evaluate(f"getComputedStyle(document.querySelector({selector!r})).color")
        low, high = sorted((_luminance(ground), _luminance(colour)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    page.click("#theme")
    switched = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (_luminance(switched) > 0.5) != (scheme == "light")


def test_every_control_can_be_reached_by_keyboard(opened, site):
    page = opened(site.as_uri())
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        tag = page.evaluate(
            "(() => { const e = document.activeElement; return e.id || e.dataset.filter || "
            "(e.matches('th button') ? 'sort' : e.matches('summary') ? 'summary' : e.matches('.card a') ? 'record' : "
            "e.tagName); })()"
        )
        reached.add(tag)
    assert {"theme", "sort", "outcome", "encoder", "dataset", "record", "summary"} <= reached


def test_a_number_leads_to_its_records_and_back(opened, site):
    page = opened(site.as_uri())
    page.locator('table[data-layout="robustness"] td.number a').nth(1).click()
    page.wait_for_url("**/runs/*.html#at-*")
    assert page.locator(".records tbody tr").count() == 5
    page.click("nav a >> nth=0")
    page.wait_for_url("**/index.html")


# ---- A run of many samples, alone on its page ------------------------------------------------------------

MANY = 120


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A report of one run with one dataset: 120 questions, every third of them broken."""
    folder = tmp_path_factory.mktemp("alone")
    attacked = [0.0 if k % 3 == 0 else 100.0 for k in range(MANY)]
    run = make_run(folder / "run", {0: [100.0] * MANY, 4: attacked})
    write_samples(run.directory, [Asked(f"s{k}", f"What is number {k}?", ("a bar", f"bar {k}")) for k in range(MANY)])
    return write_report([run], folder / "report", facts=SUITE_FACTS, progress=False)


@pytest.fixture
def records_page(opened_alone, alone):
    return opened_alone(next((alone.parent / "runs").glob("*.html")).as_uri())


@pytest.fixture
def opened_alone(browser):
    pages = []

    def open_page(address, **options):
        pages.append(browser.new_page(**options))
        pages[-1].goto(address)
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def _shown(page):
    return page.locator(".records tbody tr:visible .id").all_inner_texts()


def test_records_come_in_pages(records_page):
    page = records_page
    assert _shown(page) == [f"s{k}" for k in range(50)]
    assert page.inner_text("#page") == f"1–50 of {MANY}"
    assert page.is_disabled("#previous")
    page.click("#next")
    page.click("#next")
    assert _shown(page) == [f"s{k}" for k in range(100, 120)]
    assert page.inner_text("#page") == "101–120 of 120"
    assert page.is_disabled("#next")
    page.click("#previous")
    assert _shown(page)[0] == "s50"
    page.locator('th[data-sort="0"] button').click()
    page.locator('th[data-sort="0"] button').click()
    assert _shown(page)[:2] == ["s119", "s118"]  # sorted as a whole, from its first page


def test_records_are_searched_by_what_was_asked_and_said(records_page):
    page = records_page
    page.fill("#search", "NUMBER 77?")
    assert _shown(page) == ["s77"]
    assert page.inner_text("#shown") == f"1 of {MANY}"
    assert not page.is_visible(".pager")
    page.fill("#search", "no such words")
    assert _shown(page) == []
    assert page.is_visible("#nothing")
    page.fill("#search", "")
    page.select_option('[data-filter="outcome"]', "broken")
    assert _shown(page) == [f"s{k}" for k in range(0, MANY, 3)]


def test_a_link_to_a_sample_turns_to_its_page(opened_alone, alone):
    page = opened_alone(next((alone.parent / "runs").glob("*.html")).as_uri() + "#sample-s111")
    assert page.is_visible("#sample-s111")
    assert page.inner_text("#page") == "101–120 of 120"
    box = page.locator("#sample-s111").bounding_box()
    assert 0 <= box["y"] < page.viewport_size["height"]


@pytest.mark.parametrize("width", [320, 390])
def test_no_table_cuts_a_number_on_a_phone(opened, address, width):
    page = opened(address, viewport={"width": width, "height": 800})
    cut = page.evaluate(
        "(() => { document.querySelectorAll('details').forEach(d => { d.open = true; });"
        "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.innerText.slice(0, 80)); })()"
    )
    assert cut == []


@pytest.mark.parametrize("width", [950, 1280])
def test_the_charts_of_one_dataset_fill_their_row(opened_alone, alone, width):
    page = opened_alone(alone.as_uri(), viewport={"width": width, "height": 900})
    edges = page.eval_on_selector_all(
        ".panels",
        "rows => rows.filter(row => row.offsetParent).map(row => [row.getBoundingClientRect().right,"
        " ...[...row.children].map(child => child.getBoundingClientRect().right)])",
    )
    assert len(edges) >= 2
    assert all(abs(row - max(panels)) < 2 for row, *panels in edges)
