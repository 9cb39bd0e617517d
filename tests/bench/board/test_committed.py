"""The committed entries say what the committed runs say."""

from pathlib import Path

from bench.board.check import check_entry
from bench.board.ranking import boards
from bench.board.site import find_entries

ROOT = Path(__file__).parents[3]


def test_every_committed_entry_is_borne_out_by_its_records():
    entries = find_entries([ROOT / "results/board/entries"])
    assert {placed.entry.card.title for placed in entries} == {"clip", "tecoa2", "fare2", "tecoa4", "fare4"}
    for placed in entries:
        assert [f.refusals for f in check_entry(placed, recompute=lambda run: None) if not f.accepted] == []
    vqa = next(board for board in boards(entries) if board.header.task == "vqa")
    assert vqa.rows[0].title == "fare4"
    assert vqa.rows[-1].title == "clip"
