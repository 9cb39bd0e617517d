"""Evidence of a run that attacked the largest radius first: what it spared was attacked there in full."""

import shutil

import pytest

import bench
from bench.records import load_run
from bench.records.inferred import inferred
from bench.records.worst import worst_scores
from bench.verify import verify
from tests.bench.verify.tampering import edit, fields_of


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Eight samples, of which some are spared the smaller radius and some are robust there alone."""
    result = bench.run(
        encoder="fare4", task="zeroshot", dataset="mini-shape", limit=8, attack="pgd", eps="1,4", jobs=1,
        radii_order="descending", save_adversarial=True, output=tmp_path_factory.mktemp("runs"), progress=False,
    )  # fmt: skip
    return result.runs[0].directory


@pytest.fixture
def run(original, tmp_path):
    """A copy to tamper with."""
    return load_run(shutil.copytree(original, tmp_path / "run"))


def spared(run):
    return inferred(run.header, run.records, 1.0)


def test_an_honest_run_is_verified_and_lacks_nothing(run):
    result = verify(run, progress=False)
    assert (result.outcome, result.mismatches) == ("verified", ())
    assert run.header.doubts == ()
    assert 0 < len(spared(run)) < 8


def test_an_attack_that_was_left_out_at_the_larger_radius_is_missed_at_both(run):
    sample = next(iter(spared(run)))
    edit(run, next(r for r in run.records if r.sample_id == sample and r.radius == 4.0))
    assert fields_of(run.directory) == {(sample, 1.0, "record"), (sample, 4.0, "record")}


def test_a_sample_that_the_larger_radius_changed_is_not_taken_for_spared(run):
    """It would pass for robust at the smaller one."""
    left = worst_scores(run.header, run.records, 1.0)
    lost = next(r for r in run.records if r.radius == 1.0 and left[r.sample_id] == 100)
    edit(run, lost)
    assert fields_of(run.directory) == {(lost.sample_id, 1.0, "record")}
