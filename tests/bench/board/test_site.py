"""The board's pages: every number there, every link leads somewhere, nothing outside asked for, nothing escapes."""

import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from bench.board.site import MARKER, write_board
from bench.cli import main
from bench.errors import UsageError
from tests.bench.board.site import HOSTILE, make_entries, make_site


class Links(HTMLParser):
    """Addresses, names and scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.addresses += [found[name] for name in ("href", "src") if name in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("board")).parent


def page(site, name):
    return next(site.rglob(f"{name}*.html")).read_text()


def test_every_link_leads_to_a_page_and_a_place_on_it(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) == 1 + 2 + 5
    for path, links in pages.items():
        for address in links.addresses:
            if address.startswith(("https://example.org", "data:")):
                continue
            file, _, place = address.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target in pages, (path, address)
            assert not place or place in pages[target].ids, (path, address)


def test_the_ranking_has_claimed_and_best_known_with_credit(site):
    text = re.sub(r"\s+", " ", page(site, "vqa"))
    assert text.index(">fare4</a>") < text.index(">clip</a>")
    row = text[text.index('id="encoder-fare4"') : text.index('id="encoder-clip"')]
    assert "<strong>75.0</strong>" in row  # claimed
    assert "<strong>50.0</strong>" in row  # best known
    assert "us: 3, them: 1" in row
    assert "unreliable: gradients" in text
    assert "synthetic scenes" in row
    assert "304 M" in row


def test_a_row_and_an_entry_say_that_scores_may_follow_from_a_larger_radius(site, tmp_path):
    assert "order of radii" not in page(site, "vqa") + page(site, "1-")
    protocol = {"precision": "float32", "radii_order": "adaptive"}
    write_board(make_entries(tmp_path, protocol=protocol), tmp_path / "adaptive")
    words = "order of radii adaptive: a score may follow from a larger radius"
    assert page(tmp_path / "adaptive", "vqa").count(words) == 4
    assert words in page(tmp_path / "adaptive", "1-")


def test_an_entry_leads_to_its_evidence(site):
    text = page(site, "9-stronger")
    assert re.search(r"<dt>run.json</dt><dd><code>[0-9a-f]{64}</code>", text)
    assert "records" in text


def test_hostile_names_stay_text(site):
    for path in site.rglob("*.html"):
        assert HOSTILE not in path.read_text()
    assert "\\u003cscript" in page(site, "vqa")


def test_equal_entries_give_equal_pages(tmp_path):
    entries = make_entries(tmp_path)
    for name in ("one", "two"):
        write_board(entries, tmp_path / name)
    for path in (tmp_path / "one").rglob("*.html"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_a_board_replaces_a_board_and_nothing_else(tmp_path):
    entries = make_entries(tmp_path)
    write_board(entries, tmp_path / "site")
    write_board(entries[:1], tmp_path / "site")
    assert len(list((tmp_path / "site/entries").iterdir())) == 1
    (tmp_path / "site" / MARKER).unlink()
    with pytest.raises(UsageError, match="something other than a board"):
        write_board(entries, tmp_path / "site")


def test_the_command_packs_and_builds(tmp_path):
    make_entries(tmp_path)
    run = lambda *words: CliRunner().invoke(main, ["board", *map(str, words)])  # noqa: E731
    made = run("submit", tmp_path / "1-vqa", "--title", "Mine", "-o", tmp_path / "new" / "mine.json")
    assert made.exit_code == 0, made.output
    assert "1 claims, 2 files" in made.output
    built = run("build", tmp_path / "new", "-o", tmp_path / "out")
    assert built.exit_code == 0, built.output
    assert "Mine" in (tmp_path / "out/index.html").read_text()
    (tmp_path / "empty").mkdir()
    assert run("build", tmp_path / "empty", "-o", tmp_path / "out").exit_code == 2
