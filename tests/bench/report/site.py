"""A small report for the tests: a real run with images, beside made-up ones with names that try to break out."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import bench
from bench.config.facts import SUITE_FACTS
from bench.records import load_runs
from bench.report.pages import write_report
from tests.bench.runs import make_run

SCRIPT = "<script>document.title = 'broken out'</script>"
VOID = {"meta", "link", "img", "br", "input"}
HOSTILE = """x"><img src=x onerror="document.title='broken out'">&'"""


def make_site(folder: Path) -> Path:
    """Runs and a report of them under ``folder``; returns the report's first page."""
    real = bench.run(
        encoder="clip",
        task="zeroshot",
        dataset="mini-sketch",
        limit=14,
        attack="pgd",
        save_adversarial=True,
        output=folder / "runs",
        jobs=1,
        progress=False,
    )
    records = real.runs[0].directory / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    lines[0]["prediction"] = SCRIPT  # the clean answer to the first sample
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for encoder, score in (("fare4", 50.0), ("clip", 0.0), (HOSTILE, 100.0)):
        made = {0: [100.0] * 5, 2: [100.0, 100.0, *[score] * 3], 4: [100.0, *[score] * 4]}
        place = folder / "runs" / "made up" / f"{len(encoder)} vqa"
        make_run(place, made, encoder=encoder, suite="mini")
    place = folder / "runs" / "made up" / "without the smaller radius"
    make_run(place, {0: [100.0] * 5, 4: [0.0] * 5}, encoder="tecoa4", suite="mini")
    return write_report(load_runs([folder / "runs"]), folder / "report", facts=SUITE_FACTS, progress=False)


def copy_site(page: Path, target: Path) -> Path:
    """A copy of a report, to show that it does not depend on where it was made."""
    return shutil.copytree(page.parent, target) / page.name


class Page(HTMLParser):
    """What a page holds; fails on tags that are not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.numbers: list[bool] = []  # of each cell of a table of numbers: does it hold a link
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if "href" in values and tag != "link":
            self.links.append(values["href"])
        if "src" in values:
            self.sources.append(values["src"])
        if tag == "td" and "number" in values.get("class", "") and "absent" not in values["class"]:
            self.numbers.append(False)
        if tag == "a" and self.open[-2] == "td" and self.numbers:
            self.numbers[-1] = True

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
