"""Who stands where: the minimum over all evidence per sample, credit to whoever found it, boards kept apart."""

from bench.board.entry import Card, read_entry, write_entry
from bench.board.pack import pack
from bench.board.ranking import boards
from tests.bench.runs import make_run

SCORES = {0: [100.0] * 4, 2: [100.0, 100, 100, 0], 4: [100.0, 100, 0, 0]}


def placed(tmp_path, name, scores, submitter="", **header):
    run = make_run(tmp_path / name, scores, radii=tuple(float(r) for r in scores if r), n_samples=4, **header)
    path = tmp_path / f"{name}.json"
    write_entry(path, pack([run], Card(title=header.get("encoder", "fare4"), submitter=submitter), tmp_path))
    return read_entry(path)


def values(row):
    return {radius: best.estimate.value for radius, best in row.best.items()}


def test_one_entry_is_its_own_best(tmp_path):
    (board,) = boards([placed(tmp_path, "a", SCORES)])
    (row,) = board.rows
    assert values(row) == {0.0: 100.0, 2.0: 75.0, 4.0: 50.0}
    assert {radius: estimate.value for radius, estimate in row.claimed.items()} == values(row)


def test_third_party_evidence_lowers_the_row_sample_by_sample_and_gets_the_credit(tmp_path):
    stronger = {0: [100.0] * 4, 4: [0.0, 100, 100, 100]}  # breaks the one sample that the own attack did not
    entries = [placed(tmp_path, "a", SCORES, "us"), placed(tmp_path, "b", stronger, "them", attack="brought")]
    (board,) = boards(entries)
    (row,) = board.rows
    assert (row.own.placed, len(row.others)) == (entries[0], 1)
    assert values(row) == {0.0: 100.0, 2.0: 75.0, 4.0: 25.0}
    assert row.best[4.0].credits == {"us": 3, "them": 1}
    assert row.claimed[4.0].value == 50.0


def test_a_smaller_radius_counts_at_a_larger_one(tmp_path):
    smaller = {0: [100.0] * 4, 1: [0.0, 100, 100, 100]}
    (board,) = boards([placed(tmp_path, "a", SCORES), placed(tmp_path, "b", smaller, attack="brought")])
    assert values(board.rows[0])[4.0] == 25.0
    assert values(board.rows[0])[2.0] == 50.0


def test_the_protocol_of_single_radii_counts_each_by_itself(tmp_path):
    single = {"protocol": {"name": "paper", "precision": "float32", "cumulative_radii": False}}
    smaller = {0: [100.0] * 4, 2: [0.0, 0, 0, 0]}
    entries = [placed(tmp_path, "a", SCORES, **single), placed(tmp_path, "b", smaller, attack="brought", **single)]
    (board,) = boards(entries)
    assert values(board.rows[0])[2.0] == 0.0
    assert values(board.rows[0])[4.0] == 50.0


def test_rows_are_ranked_by_best_known_at_the_largest_radius(tmp_path):
    strong = placed(tmp_path, "a", SCORES, encoder="strong", weights={"encoder": "1"})
    weak = placed(tmp_path, "b", {0: [100.0] * 4, 4: [0.0] * 4}, encoder="weak", weights={"encoder": "2"})
    assert [row.title for row in boards([weak, strong])[0].rows] == ["strong", "weak"]
    lower = [
        placed(tmp_path, f"{name}-max", scores, encoder=name, weights={"encoder": name}, worst="max")
        for name, scores in (("much", {0: [0.0] * 4, 4: [100.0] * 4}), ("little", {0: [0.0] * 4, 4: [0.0] * 4}))
    ]
    assert [row.title for row in boards(lower)[0].rows] == ["little", "much"]


def test_what_is_measured_otherwise_is_another_board(tmp_path):
    others = [{"protocol": {"name": "paper"}}, {"norm": "l2"}, {"dataset_fingerprint": "e"}, {"model": "other"}]
    others += [{"metric": "CIDEr"}, {"task_version": 2}, {"task": "pope"}]
    entries = [placed(tmp_path, f"run{number}", SCORES, **header) for number, header in enumerate([{}, *others])]
    assert len(boards(entries)) == len(entries)
