"""A run's records beside their archive: two answers to one question are refused, and none is lost or gone on with."""

import gzip
import shutil

import pytest

from bench.records import ARCHIVED, RecordsError, archive_run, load_run, open_run
from tests.bench.runs import make_header, make_run


@pytest.fixture
def run(tmp_path):
    """A run of two samples that is archived into itself."""
    run = make_run(tmp_path / "run", {0: [100.0, 100.0], 4: [0.0, 100.0]}).directory
    shutil.copy(run / "records.jsonl", tmp_path / "lines")
    archive_run(run, run)
    return run


def test_equal_records_in_both_forms_are_one_run(run, tmp_path):
    archived = load_run(run).records
    shutil.copy(tmp_path / "lines", run / "records.jsonl")
    assert load_run(run).records == archived


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:-1], lambda lines: [lines[0].replace(b"100.0", b"0.0"), *lines[1:]]]
)
@pytest.mark.parametrize("first", [True, False])
def test_records_that_differ_from_their_archive_are_refused_naming_both(run, tmp_path, change, first):
    lines = (tmp_path / "lines").read_bytes()
    changed = b"".join(change(lines.splitlines(keepends=True)))
    assert changed != lines
    (run / "records.jsonl").write_bytes(changed if first else lines)
    (run / ARCHIVED).write_bytes(gzip.compress(lines if first else changed))
    with pytest.raises(RecordsError, match=r"records\.jsonl and .*records\.jsonl\.gz both hold .*delete one"):
        load_run(run)


def test_an_archive_takes_the_place_of_the_run_that_lay_there(tmp_path):
    old = make_run(tmp_path / "old", {0: [0.0, 0.0]}).directory
    new = make_run(tmp_path / "new", {0: [100.0, 100.0]})
    archive_run(new.directory, old)
    assert load_run(old).records == new.records


def test_a_run_goes_on_beside_an_archive_and_never_in_it(run):
    header, before = make_header(n_samples=2, radii=(4.0,)), load_run(run).records
    with pytest.raises(RecordsError, match=r"records\.jsonl\.gz is the archive of a run.*--force"):
        open_run(run, header)
    with open_run(run, header, force=True) as store:
        assert store.directory.name == "run.2"
    assert load_run(run).records == before
