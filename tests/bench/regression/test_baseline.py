"""The committed results: archives, the document, and that both agree with the package as it is."""

from pathlib import Path

import pytest

from bench.config.run_config import NATIVE
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
        assert all(check["ok"] for check in run.header.checks), run.directory
        if run.header.encoder == NATIVE:
            assert run.header.weights == whole[run.header.model]
        else:
            assert run.header.weights["encoder"] == shipped[run.header.encoder]
