"""The committed results: archives, the document, and that both agree with the package as it is."""

from pathlib import Path

import pytest

from bench.config.run_config import NATIVE
from bench.errors import UsageError
from bench.models.encoders import catalogue
from bench.models.encoders.load import digest, load_encoder
from bench.models.victims.catalogue import place_of
from bench.models.victims.load import load_victim
from bench.records import RecordsError, archive_run, load_run
from bench.regression import baseline as committed
from tests.bench.runs import make_run

ROOT = Path(__file__).parents[3]


def _on_disk(directory, **changes):
    return make_run(directory, {0: [100.0, 0.0, 100.0], 4: [0.0, 0.0, 100.0]}, **changes)


def test_an_archived_run_is_the_run(tmp_path):
    run = _on_disk(tmp_path / "run")
    archive_run(run.directory, tmp_path / "archive")
    again = load_run(tmp_path / "archive")
    assert (again.header, again.records) == (run.header, run.records)
    first = (tmp_path / "archive" / "records.jsonl.gz").read_bytes()
    archive_run(run.directory, tmp_path / "archive")
    assert (tmp_path / "archive" / "records.jsonl.gz").read_bytes() == first


def test_a_partial_run_is_not_archived(tmp_path):
    run = _on_disk(tmp_path / "run", limit=3)
    with pytest.raises(RecordsError, match="partial"):
        archive_run(run.directory, tmp_path / "archive")


def test_scores_are_written_and_read_through_no_link(tmp_path):
    run, base, precious = _on_disk(tmp_path / "a" / "run"), tmp_path / "base", tmp_path / "precious"
    (target,) = committed.update(base, [run.directory])
    scores = (target / committed.SCORES).read_text()
    (target / committed.SCORES).unlink()
    precious.write_text("precious")
    (target / committed.SCORES).symlink_to(precious)
    with pytest.raises(RecordsError, match="is a link"):
        committed.update(base, [run.directory])
    assert precious.read_text() == "precious"
    precious.write_text(scores)
    with pytest.raises(RecordsError, match="links inside a run are not followed"):
        committed.stale_scores(committed.load_runs([base]))


@pytest.mark.parametrize(
    "names", [{"suite": "../../out"}, {"suite": "/tmp/out"}, {"task": "../../../out"}, {"suite": ""}]
)
def test_no_run_is_archived_outside_the_baseline(tmp_path, names):
    """Suite and task of a header choose the folder in it."""
    run = _on_disk(tmp_path / "a" / "run", **names)
    with pytest.raises(UsageError, match=r"run\.json: suite and task"):
        committed.update(tmp_path / "base", [run.directory])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_no_run_is_archived_through_a_link(tmp_path):
    run, precious = _on_disk(tmp_path / "a" / "run"), tmp_path / "precious"
    committed.update(tmp_path / "base", [_on_disk(tmp_path / "b" / "other", encoder="clip").directory])
    (target,) = committed.update(tmp_path / "base", [run.directory])
    target.rename(precious)
    target.symlink_to(precious)
    before = {path: path.read_bytes() for path in precious.iterdir()}
    with pytest.raises(RecordsError, match="is a link"):
        committed.update(tmp_path / "base", [run.directory])
    assert {path: path.read_bytes() for path in precious.iterdir()} == before


def test_scores_that_are_no_text_are_stale(tmp_path):
    (target,) = committed.update(tmp_path / "base", [_on_disk(tmp_path / "a" / "run").directory])
    (target / committed.SCORES).write_bytes(b"caf\xe9")
    assert committed.stale_scores(committed.load_runs([tmp_path / "base"])) == [target / committed.SCORES]


def test_a_changed_record_makes_the_document_stale(tmp_path):
    document = tmp_path / "DOC.md"
    document.write_text("<!-- bench:vqa -->\n<!-- /bench:vqa -->\n<!-- bench:claims -->\n<!-- /bench:claims -->\n")
    committed.update(tmp_path / "base", [_on_disk(tmp_path / "a" / "run").directory])
    runs = committed.load_runs([tmp_path / "base"])
    committed.write(document, runs)
    assert committed.stale_blocks(document, runs) == []
    document.write_text(document.read_text().replace("66.7", "67.7"))
    assert committed.stale_blocks(document, runs) == ["vqa"]


def test_the_committed_document_says_what_the_records_say():
    runs = committed.load_runs([ROOT / committed.BASELINE])
    assert committed.stale_blocks(ROOT / committed.DOCUMENT, runs) == []


def test_the_committed_runs_are_whole_sound_and_of_the_shipped_weights():
    runs = committed.load_runs([ROOT / committed.BASELINE])
    shipped = {name: digest(load_encoder(name).visual) for name in catalogue.rows("mini")}
    whole = {place_of("mini-qwen2vl"): load_victim("mini-qwen2vl", None).digests()}  # by model, with its own tower
    clean = [(run.header.code["commit"], run.header.code.get("source")) for run in runs if not run.header.code["dirty"]]
    for run in runs:
        assert run.header.partial is None
        # a checkout with results in it was called dirty once: then a clean run of its commit had these sources
        assert (run.header.code["commit"], run.header.code.get("source")) in clean
        if run.header.defence is None:  # what fails of a defended run is its reliability: a result
            assert all(check["ok"] for check in run.header.checks), run.directory
        if run.header.encoder == NATIVE:
            assert run.header.weights == whole[run.header.model]
        else:
            assert run.header.weights["encoder"] == shipped[run.header.encoder]


def behind(defence):
    return {"attack": "adaptive-apgd", "protocol": {"precision": "float32", "defence": defence}}


def test_defended_runs_have_places_of_their_own_beside_each_other(tmp_path):
    plain, ttc, jpeg = (
        _on_disk(tmp_path / "runs" / name, **changes)
        for name, changes in (("plain", {}), ("ttc", behind("ttc")), ("jpeg", behind("jpeg")))
    )
    base = tmp_path / "base"
    committed.update(base, [plain.directory, ttc.directory])
    (new,) = committed.update(base, [jpeg.directory])
    assert new.parent.name == "defences"
    assert {run.header.defence for run in committed.load_runs([base])} == {None, "ttc", "jpeg"}
    assert committed.update(base, [jpeg.directory]) == [new], "in its own place, not in that of another defence"


def test_defended_runs_are_in_a_block_of_their_own_and_in_no_other(tmp_path):
    zero_shot = {"task": "zeroshot", "dataset": "d", "metric": "accuracy (%)", "model": None, "status": "complete"}
    runs = [_on_disk(tmp_path / "plain", **zero_shot), _on_disk(tmp_path / "ttc", **zero_shot | behind("ttc"))]
    made = committed.blocks(runs)
    assert "ttc" in made["defences"]
    assert "ttc" not in made["zeroshot"]
    assert made["zeroshot"] == committed.blocks(runs[:1])["zeroshot"]
