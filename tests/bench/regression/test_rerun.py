"""The gate as a command: what it reads, its exit codes, what an update writes, and how few losses it sees."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.records import RecordsError
from bench.regression import baseline as committed
from bench.regression.compare import compare_to_baseline
from tests.bench.runs import in_memory, make_run

HIGH, LOW = [100.0] * 80 + [0.0] * 20, [100.0] * 40 + [0.0] * 60


def check(*arguments):
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.fixture
def baseline(tmp_path):
    """A baseline of two runs, and the directory of the runs it was made from."""
    make_run(tmp_path / "runs" / "one", {0: HIGH, 4: LOW})
    make_run(tmp_path / "runs" / "two", {0: HIGH, 4: HIGH}, encoder="clip")
    committed.update(tmp_path / "base", [tmp_path / "runs"])
    return tmp_path / "base", tmp_path / "runs"


def replaced(runs, name, *scores, **changes):
    shutil.rmtree(runs / name)
    return make_run(runs / name, dict(zip((0, 4), scores, strict=False)), **changes)


def test_the_same_runs_pass(baseline):
    result = check("--baseline", baseline[0], "--runs", baseline[1])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "check passed"
    assert "ok  fare4 / vqa / mini-vqa at 4/255 stayed from 40.0 to 40.0" in result.stdout


def test_a_drop_fails_and_what_fell_stands_last(baseline):
    replaced(baseline[1], "two", HIGH, LOW, encoder="clip")
    result = check("--baseline", baseline[0], "--runs", baseline[1])
    assert result.exit_code == 1
    *_, fell, verdict = result.stdout.splitlines()
    assert fell.startswith("FELL  clip / vqa / mini-vqa at 4/255 fell from 80.0 to 40.0 (-40.0 [")
    assert verdict == "check failed: 1 of 4"
    found = json.loads(check("--baseline", baseline[0], "--runs", baseline[1], "--json").stdout)
    assert [finding["outcome"] for finding in found] == ["ok", "ok", "ok", "fell"]


def test_a_missing_baseline_fails(tmp_path, baseline):
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty"):
        for arguments in ((), ("--rerun", 0), ("--runs", baseline[1])):
            result = check("--baseline", tmp_path / place, *arguments)
            assert result.exit_code == 1
            assert "MISSING  the baseline cannot be read: no " in result.stdout


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_missing_runs_fail(tmp_path, baseline, place):
    (tmp_path / "empty").mkdir()
    result = check("--baseline", baseline[0], "--runs", tmp_path / place)
    assert result.exit_code == 1
    assert "MISSING  the runs cannot be read" in result.stdout


def test_a_missing_or_partial_run_fails(baseline):
    shutil.rmtree(baseline[1] / "two")
    result = check("--baseline", baseline[0], "--runs", baseline[1])
    assert (result.exit_code, "MISSING  clip / vqa / mini-vqa was not run" in result.stdout) == (1, True)
    for changes in ({"status": "partial"}, {"status": "started"}, {"status": "failed"}, {"limit": 100}):
        make_run(baseline[1] / "two", {0: HIGH, 4: HIGH}, encoder="clip", **changes)
        result = check("--baseline", baseline[0], "--runs", baseline[1])
        assert result.exit_code == 1
        assert "PARTIAL  clip / vqa / mini-vqa: the run is partial" in result.stdout
        shutil.rmtree(baseline[1] / "two")


def test_a_limited_rerun_that_failed_or_lacks_samples_fails():
    old = in_memory({0: HIGH})
    for changes in ({"status": "failed"}, {"status": "partial"}, {"n_samples": 51}):
        (finding,) = compare_to_baseline([in_memory({0: HIGH[:50]}, limit=51, **changes)], [old], allow_limit=True)
        assert not finding.ok


def test_score_files_that_disagree_with_the_records_fail(baseline):
    path = baseline[0] / "mini" / "vqa" / "one" / "scores.tsv"
    text = path.read_text()
    path.write_text(text.replace("s0\tg0\t100\t100", "s0\tg0\t100\t0"))
    result = check("--baseline", baseline[0], "--rerun", 0)
    assert (result.exit_code, "STALE" in result.stdout) == (1, True)
    path.unlink()
    assert check("--baseline", baseline[0], "--rerun", 0).exit_code == 1
    path.write_text(text)
    assert check("--baseline", baseline[0], "--rerun", 0).exit_code == 0


def test_an_update_replaces_what_it_was_given_and_changes_the_lines_that_changed(baseline):
    path = baseline[0] / "mini" / "vqa" / "two" / "scores.tsv"
    before, other = path.read_text().splitlines(), (baseline[0] / "mini/vqa/one/scores.tsv").read_text()
    shutil.rmtree(baseline[1] / "one")
    replaced(baseline[1], "two", HIGH, [0.0, *HIGH[1:]], encoder="clip")
    (baseline[1] / "two").rename(baseline[1] / "two.2")  # as --force names it: it still replaces its old self
    result = check("--baseline", baseline[0], "--runs", baseline[1], "--update")
    assert result.exit_code == 0
    assert "clip / vqa / mini-vqa at 4/255 fell from 80.0 to 79.0" in result.stdout
    assert "was not run" not in result.stdout
    after = path.read_text().splitlines()
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        ("s0\tg0\t100\t100", "s0\tg0\t100\t0")
    ]
    assert (baseline[0] / "mini/vqa/one/scores.tsv").read_text() == other
    assert check("--baseline", baseline[0], "--rerun", 0).exit_code == 0
    assert check("--baseline", baseline[0], "--runs", baseline[1]).exit_code == 1  # "one" was not run


def test_an_update_puts_a_new_run_beside_those_of_its_task(baseline):
    base = baseline[0]
    (base / "mini" / "vqa").rename(base / "vqa")  # as the committed baseline lies, for one
    make_run(baseline[1] / "three", {0: HIGH}, encoder="fare2")
    make_run(baseline[1] / "four", {0: HIGH}, task="captioning")
    assert check("--baseline", base, "--runs", baseline[1], "--update").exit_code == 0
    assert {path.name for path in (base / "vqa").iterdir()} == {"one", "two", "three"}
    assert (base / "mini" / "captioning" / "four").is_dir()


def test_an_update_says_what_it_adds_and_what_it_changes(baseline):
    make_run(baseline[1] / "three", {0: HIGH}, encoder="fare2")
    shutil.rmtree(baseline[1] / "one")
    shutil.rmtree(baseline[1] / "two")
    added = "added  fare2 / vqa / mini-vqa, attack ensemble: new in the baseline"
    assert check("--baseline", baseline[0], "--runs", baseline[1], "--update").stdout.splitlines() == [added]
    shutil.rmtree(baseline[0] / "mini" / "vqa" / "three")
    make_run(baseline[1] / "two", {0: HIGH, 4: LOW}, encoder="clip")
    lines = check("--baseline", baseline[0], "--runs", baseline[1], "--update").stdout.splitlines()
    assert added in lines
    assert lines[-1].startswith("FELL   clip / vqa / mini-vqa at 4/255")
    assert not any("no baseline" in line for line in lines)


def test_an_update_with_one_partial_run_writes_nothing(baseline):
    before = {path: path.read_bytes() for path in baseline[0].rglob("*") if path.is_file()}
    replaced(baseline[1], "one", LOW, LOW)
    replaced(baseline[1], "two", HIGH, LOW, encoder="clip", status="partial")
    result = check("--baseline", baseline[0], "--runs", baseline[1], "--update")
    assert result.exit_code == 2
    assert "a baseline takes whole runs only" in result.stderr
    assert {path: path.read_bytes() for path in baseline[0].rglob("*") if path.is_file()} == before
    with pytest.raises(RecordsError, match="whole runs only"):
        committed.update(baseline[0], [baseline[1]])


def test_an_update_makes_a_baseline_where_there_was_none(baseline, tmp_path):
    result = check("--baseline", tmp_path / "new" / "base", "--runs", baseline[1], "--update")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [f"added  {name} / vqa / mini-vqa, attack ensemble: new in the baseline" for name in ("fare4", "clip")],
    )
    assert check("--baseline", tmp_path / "new" / "base", "--runs", baseline[1]).exit_code == 0


@pytest.mark.parametrize("rise", ["nan", "inf"])
def test_a_rise_that_nothing_can_exceed_or_keep_is_a_usage_error(baseline, rise):
    result = check("--baseline", baseline[0], "--runs", baseline[1], "--max-gradient-rise", rise)
    assert result.exit_code == 2
    assert "takes a percentage" in result.stderr


def test_an_update_without_runs_is_a_usage_error(baseline):
    assert check("--baseline", baseline[0], "--update").exit_code == 2


def test_a_document_is_checked_where_one_is_named(baseline, tmp_path):
    document = tmp_path / "DOC.md"
    document.write_text("<!-- bench:vqa -->\n<!-- /bench:vqa -->\n<!-- bench:claims -->\n<!-- /bench:claims -->\n")
    result = check("--baseline", baseline[0], "--rerun", 0, "--document", document)
    assert result.exit_code == 1
    assert f"STALE  block 'vqa' of {document} is not what the records say" in result.stdout


def test_unreadable_baselines_and_odd_names_do_not_break_the_text(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0, 50.0 / 3]}, groups=["a\tb", "é\n"])
    assert committed.scores_text(run) == "sample\tgroup\tclean\ns0\ta\\tb\t100\ns1\t\\xe9\\n\t16.6667\n"


# ---- rates -----------------------------------------------------------------------------------------------


def gate_fails(rng, lost, noise, comparisons=12, n=100):
    """Whether a gate fails whose runs flip a share `noise` of samples, as many either way, and one loses `lost`."""
    old, new = [], []
    for i in range(comparisons):
        before = 100.0 * (rng.random(n) < 0.6)
        flips = rng.random(n) < noise / 2 / np.where(before > 0, 0.6, 0.4)
        after = np.where(flips, 100.0 - before, before)
        if i == 0:
            after[rng.permutation(np.flatnonzero(before))[:lost]] = 0.0
        old.append(in_memory({0: before.tolist()}, dataset=f"d{i}"))
        new.append(in_memory({0: after.tolist()}, dataset=f"d{i}", weights={"encoder": "new"}))
    return any(not finding.ok for finding in compare_to_baseline(new, old))


@pytest.mark.parametrize(("lost", "fails"), [(10, False), (11, True)])
def test_the_gate_of_twelve_comparisons_sees_eleven_one_sided_losses(lost, fails):
    """Holm: 12 / 2^11 = 0.006 is below 0.01, 12 / 2^10 = 0.012 is not."""
    assert gate_fails(np.random.default_rng(0), lost, noise=0.0) is fails


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_noise_alone_fails_at_most_one_gate_in_a_hundred(noise):
    failed = sum(gate_fails(np.random.default_rng(seed), 0, noise) for seed in range(40))
    assert failed <= 2  # at a rate of 1 %, more than two of 40 come once in 130


def test_a_loss_amid_noise_is_found_nineteen_times_in_twenty():
    """Twenty of 100 lost while one sample in fifty flips either way."""
    found = sum(gate_fails(np.random.default_rng(seed), 20, noise=0.02) for seed in range(20))
    assert found >= 18


# ---- the committed baseline ------------------------------------------------------------------------------


def test_the_committed_score_files_say_what_the_records_say():
    root = Path(__file__).parents[3] / "results" / "mini"
    assert committed.stale_scores(committed.load_runs([root])) == []
