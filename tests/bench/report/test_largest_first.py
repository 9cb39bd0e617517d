"""What a report and a table say of a run that attacked the largest radius first."""

from pathlib import Path

import pytest

from bench.analysis.cells import averaged, measured
from bench.analysis.choose import choose
from bench.config.facts import SUITE_FACTS
from bench.records import Run
from bench.records.worst import scores_at
from bench.report.gallery import choose as shown
from bench.report.pages import write_report
from bench.report.run_page import lines_of
from bench.tables.fill import fill
from bench.tables.layouts import flat
from bench.tables.notes import notes
from tests.bench.runs import make_header, make_record

SENTENCE = "Where the largest radius came first, what it left as it was is not attacked at smaller ones."


def made(order="descending", name="run", **changes):
    """Four samples: spared, broken in both balls, in the larger one alone, and wrong from the beginning."""
    clean = [make_record(f"s{k}", group=f"g{k}", score=100.0 * (k < 3)) for k in range(4)]
    large = [make_record(f"s{k}", "apgd", 4.0, 100.0 * (k == 0), group=f"g{k}") for k in range(3)]
    small = [make_record(f"s{k}", "apgd", 2.0, 100.0 * (k == 2), group=f"g{k}") for k in (1, 2)]
    protocol = {} if order == "ascending" else {"radii_order": order}
    fields = {"status": "complete", "n_samples": 4, "protocol": protocol, "suite": "mini"}
    return Run(Path(name), make_header(**fields | changes), [*clean, *large, *small])


def test_a_page_says_from_which_radius_a_score_follows():
    lines = {line.sample_id: line for line in lines_of(made(), {}, {})}
    assert lines["s0"].attacked[0] is None
    assert {name: line.absent[0] for name, line in lines.items()} == {
        "s0": "as clean, inferred from 4/255", "s1": "not attacked", "s2": "not attacked", "s3": "not attacked",
    }  # fmt: skip
    assert {name: line.outcome for name, line in lines.items()} == {
        "s0": "robust", "s1": "broken", "s2": "broken", "s3": "not attacked",
    }  # fmt: skip


def test_the_written_page_has_those_words(tmp_path):
    pages = {}
    for order in ("descending", "ascending"):
        write_report([made(order)], tmp_path / order, facts=SUITE_FACTS, progress=False)
        pages[order] = "".join(path.read_text() for path in (tmp_path / order).rglob("*.html"))
    assert pages["descending"].count("as clean, inferred from 4/255") == 1
    assert "a larger one left as it was" in pages["descending"]
    assert "inferred" not in pages["ascending"]
    assert "a larger one left as it was" not in pages["ascending"]


def test_the_gallery_names_the_smallest_ball_that_breaks_a_sample_and_not_the_first_attacked():
    assert {one.sample_id: one.outcome for one in shown(made(), 9)} == {
        "s0": "robust", "s1": "broken at 2/255", "s2": "broken at 4/255", "s3": "not attacked",
    }  # fmt: skip


@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_the_score_of_a_spared_sample_is_its_clean_one(order):
    assert [sum(scores_at(made(order), radius).values()) for radius in (0.0, 2.0, 4.0)] == [300.0, 200.0, 100.0]


def test_a_table_says_so_and_tells_the_orders_apart():
    runs = [made("descending", "one"), made("ascending", "other")]
    tables = [fill("flat", flat, flat.measures(few, SUITE_FACTS)) for few in (runs, runs[1:])]
    assert [SENTENCE in notes(table) for table in tables] == [True, False]
    assert "order of radii" in tables[0].row_names
    assert "order of radii" not in tables[1].row_names
    assert choose(runs, [("radii_order", "desc*")]) == runs[:1]


def test_a_table_names_the_runs_that_attacked_every_radius_beside_others_that_did_not():
    """Of other encoders, so that no row says it; a single radius and images made elsewhere have no order."""
    runs = [
        made("adaptive", "one"),
        made("ascending", "two", encoder="clip"),
        made("ascending", "three", encoder="single", radii=(4.0,)),
        made("ascending", "four", encoder="moved", protocol={"surrogate": "clip"}),
    ]
    for few, said in ((runs, ["The smallest radius came first in: clip, mini-vqa."]), (runs[:1], []), (runs[1:], [])):
        table = fill("flat", flat, flat.measures(few, SUITE_FACTS))
        assert [note for note in notes(table) if "smallest radius" in note] == said


def test_an_average_mixes_no_orders():
    fields = {"answers": "class", "task": "zeroshot", "model": None}
    pair = [made(order, order, dataset=name, **fields) for order, name in (("descending", "a"), ("ascending", "b"))]
    same = [made("descending", name, dataset=name, **fields) for name in ("a", "b")]
    assert averaged(same, SUITE_FACTS)
    assert not averaged(pair, SUITE_FACTS)
    assert len(measured(pair)) == 6
