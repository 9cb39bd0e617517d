"""A run of many samples is spread over pages: each sample on one, none large, all linked and escaped."""

import json
import re
from collections import Counter
from urllib.parse import unquote, urlsplit

import pytest

from bench.config.facts import SUITE_FACTS
from bench.records import load_runs, reading
from bench.report import paging
from bench.report.pages import write_report
from bench.report.paging import MOST_BYTES, MOST_SAMPLES, Row, in_pages
from tests.bench.report.large import BROKEN, ERROR, PLANTED, SAMPLES, make_large, name_of
from tests.bench.report.site import Page
from tests.bench.report.test_fuzz import Live
from tests.bench.runs import make_run

LARGEST = 1_000_000  # bytes of a file
ROW = re.compile(r'<tr id="sample-.*?</tr>', re.DOTALL)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    return write_report([make_large(folder / "run")], folder / "report", facts=SUITE_FACTS, progress=False)


@pytest.fixture(scope="module")
def pages(report):
    """The run's pages in order."""
    runs = report.parent / "runs"
    (first,) = (path for path in runs.glob("*.html") if path.name.count(".") == 1)
    return [first, *(runs / f"{first.stem}.{number}.html" for number in (2, 3))]


def listed(page):
    """What the index says of each page."""
    text = page.with_suffix(".pages.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.runPages = ").removesuffix(";\n"))


def entries(page, number):
    """What the search knows of a page's samples."""
    text = page.with_suffix(".js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix(f"window.runWords?.({number}, ").removesuffix(");\n"))


def test_no_file_of_a_report_is_large(report, pages):
    assert set(report.parent.glob("runs/*.html")) == set(pages)
    assert len(list(report.parent.glob("runs/*.js"))) == 1 + len(pages)
    assert all(path.stat().st_size < LARGEST for path in report.parent.rglob("*.*"))


def test_every_sample_is_on_one_page_in_the_order_of_the_run(pages):
    shown = [re.findall(r'<span class="id">(.*?)</span>', path.read_text(encoding="utf-8")) for path in pages]
    assert [len(ids) for ids in shown] == [MOST_SAMPLES, MOST_SAMPLES, SAMPLES - 2 * MOST_SAMPLES]
    names = [name_of(k) for k in range(SAMPLES)]
    assert [ids.replace("&lt;", "<") for page in shown for ids in page if "&" not in ids] == [
        name for k, name in enumerate(names) if k not in PLANTED
    ]
    assert [entry[0] for number, page in enumerate(pages) for entry in entries(page, number)] == names


def test_rows_are_those_of_a_run_with_one_page(tmp_path, pages, monkeypatch):
    monkeypatch.setattr(paging, "MOST_SAMPLES", 10**9)
    monkeypatch.setattr(paging, "MOST_BYTES", 10**9)
    whole = write_report([make_large(tmp_path / "run")], tmp_path / "report", facts=SUITE_FACTS, progress=False)
    (page,) = (whole.parent / "runs").iterdir()
    rows = [row for path in pages for row in ROW.findall(path.read_text(encoding="utf-8"))]
    assert len(rows) == SAMPLES
    assert rows == ROW.findall(page.read_text(encoding="utf-8"))


def test_the_index_counts_what_is_on_each_page(pages):
    found = listed(pages[0])
    assert [one["file"] for one in found] == [path.name for path in pages]
    assert [one["words"] for one in found] == [path.with_suffix(".js").name for path in pages]
    assert found[0]["ends"] == ["s0", "s999"]
    assert [one["samples"] for one in found] == [MOST_SAMPLES, MOST_SAMPLES, 300]
    texts = [path.read_text(encoding="utf-8") for path in pages]
    outcomes = [Counter(re.findall(r'<tr id=.*data-outcome="(.*?)"', text)) for text in texts]
    assert [one["outcomes"] for one in found] == outcomes
    assert sum(outcomes, Counter()) == {"robust": SAMPLES - len(BROKEN) - 1, "broken": len(BROKEN), "error": 1}
    for text in texts:  # every filter is offered on every page
        select = re.search(r"<select data-filter.*?</select>", text)[0]
        assert re.findall(r"<option>(.*?)</option>", select) == ["robust", "broken", "error"]


def test_a_search_knows_what_was_asked_and_said(pages):
    id_, outcome, words, anchor = entries(pages[2], 2)[ERROR - 2 * MOST_SAMPLES]
    assert (id_, outcome, anchor) == (f"s{ERROR}", "error", f"sample-s{ERROR}")
    assert words == f"What is in picture {ERROR}? · a · b · s{ERROR} · out of memory"


def test_every_link_between_the_pages_leads_somewhere(report, pages):
    known = {path: Page(path) for path in (report, *pages)}
    for path, page in known.items():
        assert len(set(page.ids)) == len(page.ids)
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target in known, link
            assert not parts.fragment or unquote(parts.fragment) in known[target].ids, link
    for number, page in enumerate(pages):  # what the scripts link to
        assert {entry[3] for entry in entries(page, number)} <= set(known[page].ids)


def test_a_card_of_the_gallery_leads_to_the_page_of_its_sample(report, pages):
    links = Page(report).links
    assert f"runs/{pages[1].name}#sample-s{BROKEN[1]}" in links
    assert f"runs/{pages[0].name}#sample-s0" in links


def test_names_and_answers_are_escaped_on_every_page(pages):
    for number, path in enumerate(pages):
        text = path.read_text(encoding="utf-8")
        live = Live(text)
        assert (live.scripts, live.attributes) == (3, [])  # its own two, and the index of the pages
        assert set(live.places) >= {pages[0].with_suffix(".pages.js").name}
        assert "<img src=x" not in text
        assert text.count("<script>") == 2
        (k,) = (k for k in PLANTED if k // MOST_SAMPLES == number)
        entry = entries(path, number)[k % MOST_SAMPLES]
        assert (entry[0], PLANTED[k] in entry[2]) == (PLANTED[k], True)
        assert "script-src 'unsafe-inline' 'self';" in text


def test_the_records_of_one_run_at_a_time_are_in_memory(tmp_path, monkeypatch):
    """Each run's are read once, and let go before the next."""
    for name in "abc":
        make_run(tmp_path / "runs" / name, {0: [100.0] * 4, 4: [100.0, 0.0, 0.0, 0.0]}, encoder=name)
    runs, held = load_runs([tmp_path / "runs"]), []
    decode = reading.decode

    def watched(*given):
        held.append(sum("records" in run.__dict__ for run in runs))
        return decode(*given)

    monkeypatch.setattr(reading, "decode", watched)
    write_report(runs, tmp_path / "report", facts=SUITE_FACTS, progress=False)
    assert held == [0, 0, 0]
    assert not any("records" in run.__dict__ for run in runs)
    assert [len(run.records) for run in runs] == [8, 8, 8]  # they can be read again


def _rows(count, size, text="a"):
    return [Row(str(k), "robust", "", text * size) for k in range(count)]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (_rows(0, 1), [0]),
        (_rows(MOST_SAMPLES, 1), [MOST_SAMPLES]),
        (_rows(MOST_SAMPLES + 1, 1), [MOST_SAMPLES, 1]),
        (_rows(5, MOST_BYTES // 2), [2, 2, 1]),
        (_rows(5, MOST_BYTES // 4, "é"), [2, 2, 1]),  # bytes, not characters
        (_rows(3, 2 * MOST_BYTES), [1, 1, 1]),
    ],
)
def test_a_page_has_so_many_samples_and_bytes(rows, wanted):
    found = list(in_pages(rows))
    assert [len(page) for page in found] == wanted
    assert [row for page in found for row in page] == rows


def test_a_small_run_keeps_its_one_page(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0] * 3, 4: [0.0] * 3})
    report = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False)
    (page,) = (report.parent / "runs").iterdir()
    text = page.read_text(encoding="utf-8")
    assert Live(text).scripts == 1
    assert "script-src 'unsafe-inline';" in text
    assert "runWords" not in text
