"""Audits beside the robust scores: what is saved beside a run is what the table and the document say."""

import pytest

from bench.analysis.audits import FILE, audits
from bench.regression import baseline as committed
from bench.tables.audits import HEAD, table
from bench.verify.audit import Audit, Finding, save
from tests.bench.runs import make_run

FOUND = (
    Finding("gradient against differences", False, "", tried=16),
    Finding("more steps", True, "1 of 20 robust samples broken", 20, 1, 9.2),
    Finding("more restarts", False, "", 20, 0, 6.1),
    Finding("loss still rising", False, "not known"),
)


@pytest.fixture
def run(tmp_path):
    found = make_run(tmp_path / "fare4_x", {0: [100.0, 0.0, 100.0], 4: [0.0, 0.0, 100.0]})
    save(Audit(str(found.directory), 4.0, 36.25, 181, FOUND, 61.4, 12345))
    return found


def test_an_audit_stands_beside_its_runs_score(run, tmp_path):
    other = make_run(tmp_path / "other", {0: [100.0, 0.0, 100.0], 4: [0.0] * 3}, encoder="clip")
    audited = audits([other, run])
    row = dict(zip(HEAD, table(audited).splitlines()[2].strip("| ").split(" | "), strict=True))
    assert (row["encoder"], row["radius"], row["robust score"]) == ("fare4", "4/255", "36.2")
    assert (row["could still win"], row["which"], row["tried"]) == ("1 of 3", "more steps", "20 of 181")
    assert (row["at most still to take"], row["seconds"], row["gradients"]) == ("9.2", "61", "12345")
    assert committed.blocks([other, run])["audit"] == table(audited)
    assert "audit" not in committed.blocks([other])


def test_of_a_metric_without_a_top_it_is_a_share_of_the_samples(tmp_path):
    found = make_run(tmp_path / "captions", {0: [120.0], 4: [60.0]}, task="captioning", metric="CIDEr", ceiling=None)
    save(Audit(str(found.directory), 4.0, 60.0, 1, FOUND, 61.4, 12345))
    assert "| 9.2 % of samples |" in table(audits([found]))


def test_it_names_no_folder_of_the_machine(run, tmp_path):
    assert str(tmp_path) not in (run.directory / FILE).read_text()
