"""An honest entry is accepted; a forged one of each kind is refused, and the reason names what was forged."""

import gzip
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from bench.board.entry import Card, read_entry, write_entry
from bench.board.pack import pack
from bench.cli import main
from bench.errors import UsageError
from bench.records import load_run
from bench.records.images import FOLDER, path_of
from bench.records.worst import kept_records
from tests.bench.runs import make_run


def verified(entry, data):
    return CliRunner().invoke(main, ["board", "verify", str(entry), "--data-root", str(data), "--quiet"])


def refused(entry, data, *words):
    ended = verified(entry, data)
    assert ended.exit_code == 1, ended.output
    assert all(word in ended.output for word in ("refused", *words)), ended.output


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def repack(entry, run):
    """The entry of a forger who packs again what was tampered with."""
    write_entry(entry, pack([load_run(run.directory)], Card(submitter="us"), entry.parent))


def kept(run):
    return next(iter(kept_records(run.header, run.records).values()))


def test_an_honest_entry_is_accepted(entry, data):
    ended = verified(entry, data)
    assert ended.exit_code == 0, ended.output
    assert "accepted: zeroshot / wds_mini-sketch, pgd: verified" in ended.output


def test_a_better_score_is_refused(entry, data):
    def forge(claims):
        claims["claims"][0]["scores"][-1] |= {"value": 99.0, "high": 100.0}

    edit(entry, forge)
    refused(entry, data, "the score at 4 is", "99.00 is claimed")


def test_a_narrower_interval_is_refused(entry, data):
    edit(entry, lambda e: e["claims"][0]["scores"][0].update(low=e["claims"][0]["scores"][0]["value"]))
    refused(entry, data, "the score at 0 is")


def test_what_a_sample_is_left_with_is_refused_where_forged(entry, data):
    edit(entry, lambda e: e["claims"][0]["left"].update({"4": [100.0] * 8}))
    refused(entry, data, "what samples are left with")


def test_a_flipped_bit_of_an_image_is_refused(entry, run, data):
    path = path_of(run.directory / FOLDER, kept(run).sample_id, kept(run).radius)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(entry, data, path.name, "has changed")
    repack(entry, run)  # even where the forger takes its digest anew
    refused(entry, data, "pixels")


def test_an_image_beyond_the_radius_is_refused(entry, run, data):
    record = kept(run)
    path = path_of(run.directory / FOLDER, record.sample_id, record.radius)
    pixels = load_file(path)["image"]
    save_file({"image": np.clip(pixels + np.float32(0.1), 0, 1)}, path)
    repack(entry, run)
    refused(entry, data, record.sample_id, "radius")


def test_records_that_say_more_than_the_images_are_refused(entry, run, data):
    path = run.directory / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line |= {"score": 100.0} if line["error"] is None else {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    repack(entry, run)
    refused(entry, data, "score")


def test_other_data_is_refused(entry, run, data, tmp_path):
    other = shutil.copytree(data, tmp_path / "other")
    names = other / "wds_mini-sketch/classnames.txt"
    names.write_text("\n".join(reversed(names.read_text().split("\n"))))
    refused(entry, other)
    edit(entry, lambda e: e["claims"][0]["header"].update(dataset_fingerprint="0" * 64))
    refused(entry, data, "dataset_fingerprint")


def test_another_protocol_is_refused(entry, data):
    edit(entry, lambda e: e["claims"][0]["header"]["protocol"].update(name="paper"))
    refused(entry, data, "protocol.name", "'paper' in the entry")


def test_missing_and_surplus_files_are_refused(entry, run, data):
    record = kept(run)
    path = path_of(run.directory / FOLDER, record.sample_id, record.radius)
    shutil.copy(path, path.with_name("another.safetensors"))
    refused(entry, data, "another.safetensors", "not in the entry")
    path.with_name("another.safetensors").unlink()
    path.unlink()
    refused(entry, data, path.name, "missing")
    shutil.rmtree(run.directory)
    refused(entry, data, "no evidence at")


def test_a_hidden_sanity_check_is_refused(entry, data):
    edit(entry, lambda e: e["claims"][0]["header"].update(checks=[]))
    refused(entry, data, "checks")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_files_outside_the_evidence_are_refused(entry, data, name):
    edit(entry, lambda e: e["claims"][0]["files"].update({name: "0" * 64}))
    refused(entry, data, name)


def test_an_entry_of_records_alone_says_so(tmp_path):
    run = make_run(tmp_path / "run", {0: [100, 100, 0], 2: [100, 0, 0], 4: [0, 0, 0]})
    path = tmp_path / "entry.json"
    write_entry(path, pack([run], Card(), tmp_path))
    ended = CliRunner().invoke(main, ["board", "verify", str(path)])
    assert ended.exit_code == 0
    assert "records alone: no image was saved" in ended.output
    packed = run.directory / "records.jsonl"
    packed.with_suffix(".jsonl.gz").write_bytes(gzip.compress(packed.read_bytes()))
    assert CliRunner().invoke(main, ["board", "verify", str(path)]).exit_code == 1


def test_what_cannot_be_an_entry_is_refused(tmp_path):
    whole = make_run(tmp_path / "a", {0: [100, 0]}, radii=(), n_samples=2)
    partial = make_run(tmp_path / "b", {0: [100, 0]}, radii=(), n_samples=2, limit=2)
    other = make_run(tmp_path / "c", {0: [100, 0]}, radii=(), n_samples=2, encoder="clip")
    for runs, words in (([whole, other], "of one encoder"), ([partial], "partial"), ([], "none")):
        with pytest.raises(UsageError, match=words):
            pack(runs, Card(), tmp_path)
    with pytest.raises(UsageError, match="https"):
        Card(link="javascript:alert(1)")


@pytest.mark.parametrize("place", ["/etc", "a\0b"])
def test_a_place_that_is_not_relative_is_refused(entry, data, place):
    edit(entry, lambda e: e["claims"][0].update(place=place))
    refused(entry, data, "is no relative path")


def test_a_name_of_two_lines_cannot_pass_for_another_finding(entry, data):
    def forge(e):
        e["claims"][0]["header"]["attack"] = "pgd\naccepted: all"

    edit(entry, forge)
    ended = verified(entry, data)
    assert ended.exit_code == 1
    assert all(line.startswith("refused: ") for line in ended.output.splitlines())


def test_an_entry_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    ended = CliRunner().invoke(main, ["board", "submit", str(run.directory), "-o", str(tmp_path / "file" / "e.json")])
    assert ended.exit_code == 2
    assert ended.output.startswith(f"bench: cannot create {tmp_path / 'file'}")
    assert len(ended.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.update(version=9), "version is 9"),
        (lambda e: e.update(claims=[]), "claims nothing"),
        (lambda e: e.update(more=1), "more"),
        (lambda e: e["card"].update(link="javascript:alert(1)"), "https"),
        (lambda e: e["claims"][0].update(kind="rumour"), "kind"),
        (lambda e: e["claims"][0]["samples"].pop(), "one length"),
        (lambda e: e["claims"][0]["left"].pop("4"), "radii"),
        (lambda e: e["claims"][0]["header"].pop("norm"), "norm"),
        (lambda e: e["claims"][0]["header"].update(limit=8), "partial run"),
        (lambda e: e["claims"][0]["header"].update(status="failed"), "partial run"),
        (lambda e: e["claims"][0]["scores"].append(e["claims"][0]["scores"][0]), "twice"),
        (lambda e: e["claims"][0]["scores"][-1].update(radius=4.0000001), "radii"),
        (lambda e: e["claims"][0]["scores"][-1].update(value=1000, high=1000), "ranges from 0 to 100"),
        (lambda e: e["claims"][0]["scores"][-1].update(value=-50, low=-50), "ranges from 0 to 100"),
        (lambda e: e["claims"][0]["scores"][-1].update(low=100, high=0), "ranges from 0 to 100"),
        (lambda e: e["claims"][0]["scores"][-1].update(n=10**6), "n = 1000000"),
        (lambda e: e["claims"][0]["scores"][-1].update(n=-1), "n = -1"),
        (lambda e: e["claims"][0]["left"]["4"].__setitem__(0, 1e308), "left with 1e+308"),
    ],
)
def test_a_file_that_is_no_entry_is_named(change, words, entry, data):
    edit(entry, change)
    ended = verified(entry, data)
    assert ended.exit_code == 2
    assert entry.name in ended.output
    assert words in ended.output
    with pytest.raises(Exception, match=entry.name):
        read_entry(entry)
