"""Generated blocks of a Markdown file."""

import pytest

from bench.config.facts import SUITE_FACTS
from bench.records import RecordsError
from bench.tables.blocks import stale, write_block, write_document
from bench.tables.layouts import build
from bench.tables.render import STYLES, render
from bench.tables.table import BANNER
from tests.bench.runs import make_run
from tests.bench.tables.made import BAD, GOOD


@pytest.mark.parametrize(
    "changes", [{"status": "partial"}, {"status": "failed"}, {"limit": 10}, {"n_samples": 11}], ids=str
)
def test_partial_runs_are_marked_and_kept_out_of_committed_tables(tmp_path, changes):
    whole = make_run(tmp_path / "whole", {0: GOOD, 4: BAD})
    partial = make_run(tmp_path / "partial", {0: GOOD, 4: BAD}, encoder="tecoa4", **changes)
    file = tmp_path / "README.md"
    file.write_text("<!-- bench:t -->\n<!-- /bench:t -->\n")
    before = file.read_text()
    for style in (style for style in STYLES if style != "csv"):  # there, each line says whether its run is whole
        shown = render(build("flat", [whole, partial], SUITE_FACTS), style)
        assert BANNER in shown
        with pytest.raises(ValueError, match="only whole runs"):
            write_block(file, "t", shown)
        assert BANNER not in render(build("flat", [whole], SUITE_FACTS), style)
    assert file.read_text() == before


@pytest.mark.parametrize("inside", ["", "old\n", "\n\nold\n\n"])
def test_a_block_is_replaced_and_nothing_else(tmp_path, inside):
    file = tmp_path / "B.md"
    file.write_text(f"top\n<!-- bench:a -->\n{inside}<!-- /bench:a -->\n\n<!-- bench:b -->\nB\n<!-- /bench:b -->\nend")
    assert stale(file, "a", "new\n")
    for _ in range(2):
        write_block(file, "a", "\nnew \\1\n")
        assert file.read_text() == (
            "top\n<!-- bench:a -->\nnew \\1\n<!-- /bench:a -->\n\n<!-- bench:b -->\nB\n<!-- /bench:b -->\nend"
        )
        assert not stale(file, "a", "new \\1")
    assert stale(file, "a", "newer")
    assert not stale(file, "b", "B\n")


@pytest.mark.parametrize(
    "text",
    [
        "no block",
        "<!-- bench:a -->\n",
        "<!-- /bench:a -->\n<!-- bench:a -->\n",
        "<!-- bench:a -->\n<!-- /bench:a -->\n<!-- bench:a -->\n<!-- /bench:a -->\n",
    ],
)
def test_a_file_without_the_block_is_refused(tmp_path, text):
    file = tmp_path / "B.md"
    file.write_text(text)
    for function in (write_block, stale):
        with pytest.raises(ValueError, match=r"B\.md must have the lines"):
            function(file, "a", "new")
    assert file.read_text() == text
    with pytest.raises(RecordsError, match=r"absent\.md"):
        write_block(tmp_path / "absent.md", "a", "new")


def test_a_name_from_a_result_ends_no_comment_and_makes_no_heading(tmp_path):
    evil = "vqa -->\n# <script>x</script>\n<!--"
    file = tmp_path / "new.md"
    write_document(file, {evil: "content"})
    text = file.read_text()
    assert "<script>" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# Results"]
    write_block(file, evil, "newer")
    assert "newer" in file.read_text()
    assert not stale(file, evil, "newer")


def test_a_document_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "B.md"
    file.write_bytes(b"<!-- bench:a -->\ncaf\xe9\n<!-- /bench:a -->")
    with pytest.raises(RecordsError, match=r"B\.md is no text in UTF-8"):
        write_block(file, "a", "new")


def test_an_empty_block_is_refused(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        write_block(tmp_path / "B.md", "a", " \n")
