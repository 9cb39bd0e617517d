"""Audits beside runs: read as they were written, or refused by name."""

import json
import os

import pytest

from bench.analysis.audits import FILE, audits
from bench.records import RecordsError
from tests.bench.runs import make_run

FOUND = {"name": "restarts", "wins": True, "tried": 3, "broken": 1, "most": 12.5}
AUDIT = {"radius": 4.0, "score": 50.0, "robust": 3, "seconds": 1.5, "evaluations": 100, "findings": [FOUND]}


def beside(folder, **changes):
    run = make_run(folder / "run", {0: [100.0, 100.0], 4: [100.0, 0.0]})
    (run.directory / FILE).write_text(json.dumps(AUDIT | changes))
    return run


def test_an_audit_is_read(tmp_path):
    (found,) = audits([beside(tmp_path)])
    assert (found.audit.wins, found.audit.tried, found.audit.most) == (("restarts",), 3, 12.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"score": 1000},
        {"score": -50},
        {"score": 1e308},
        {"radius": 3.0},
        {"robust": -1},
        {"evaluations": 1.5},
        {"seconds": -1},
        {"findings": [FOUND | {"most": 1e9}]},
        {"findings": [FOUND | {"most": -1}]},
        {"findings": [FOUND | {"tried": -1}]},
        {"findings": None},
    ],
    ids=str,
)
def test_what_no_audit_says_is_refused_by_name(tmp_path, changes):
    with pytest.raises(RecordsError, match=r"audit\.json"):
        audits([beside(tmp_path, **changes)])


def test_an_audit_is_a_file_of_its_run(tmp_path):
    run = beside(tmp_path)
    (run.directory / FILE).unlink()
    assert audits([run]) == []
    os.mkfifo(run.directory / FILE)
    assert audits([run]) == []
    (run.directory / FILE).unlink()
    (run.directory / FILE).symlink_to("/etc/passwd")
    with pytest.raises(RecordsError, match="is a link"):
        audits([run])
