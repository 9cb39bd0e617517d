"""What lies in a run's folder is not trusted: wrong types, impossible values, damage and links are refused by name."""

import gzip
import json
import os

import pytest

from bench.records import ARCHIVED, RecordsError, archive_run, find_runs, load_run, open_run, read_header
from tests.bench.runs import make_header, make_record, make_run

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def run(tmp_path):
    """A complete run of two samples at two radii."""
    return make_run(tmp_path / "run", {0: [100.0, 100.0], 2: [50.0, 100.0], 4: [0.0, 100.0]}).directory


def rewrite_header(directory, **changes):
    path = directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_record(directory, number, **changes):
    """Change one line of the records; the first is line 1."""
    path = directory / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
    path.write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suite", None),
        ("encoder", 5),
        ("encoder", ["clip"]),
        ("task_version", 1.5),
        ("metric", {"name": "accuracy"}),
        ("metric", None),
        ("worst", "least"),
        ("worst", "\ud800"),
        ("norm", "l7"),
        ("radii", 4),
        ("radii", ["four"]),
        ("radii", [-2.0]),
        ("radii", [1e308]),
        ("radii", ["inf"]),
        ("radii", [10**400]),
        ("radii", [[2.0]]),
        ("seed", "0"),
        ("n_samples", "3"),
        ("n_samples", 0),
        ("n_samples", -1),
        ("n_samples", 2.5),
        ("n_samples", True),
        ("limit", 0),
        ("weights", ["ab12"]),
        ("weights", {"encoder": 5}),
        ("attack_steps", {"name": "apgd"}),
        ("attack_steps", ["apgd"]),
        ("attack_steps", [{"steps": 100}]),
        ("protocol", None),
        ("protocol", "strict"),
        ("protocol", {"name": 5}),
        ("protocol", {"half_verdicts": "no"}),
        ("protocol", {"surrogate": ["clip"]}),
        ("code", "0123abc"),
        ("code", {"commit": 5}),
        ("packages", {"numpy": 2}),
        ("ended", 5),
        ("status", "done"),
        ("checks", None),
        ("checks", "ok"),
        ("checks", ["no_errors"]),
        ("checks", [{"name": "no_errors"}]),
        ("checks", [{"name": "no_errors", "ok": "yes", "detail": ""}]),
        ("config", []),
        ("config", {"data_root": 5}),
        ("config", {"place": "vqa:/data"}),
        ("config", {"place": {"name": "x"}}),
        ("ceiling", 0.0),
        ("ceiling", -1.0),
        ("ceiling", "high"),
        ("schema_version", "2"),
        ("schema_version", 3),
    ],
)
def test_a_header_of_wrong_types_or_values_is_refused_naming_file_and_field(run, field, value):
    rewrite_header(run, **{field: value})
    with pytest.raises(RecordsError, match=rf"run\.json: .*({field}|number|no text)"):
        load_run(run)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe{}",
        b"{}",
        DEEP.encode(),
        b'{"protocol": ' + DEEP.encode() + b"}",
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"a": NaN}',
    ],
    ids=range(10),
)
def test_a_header_that_is_none_is_refused_naming_the_file(run, content):
    (run / "run.json").write_bytes(content)
    with pytest.raises(RecordsError, match=r"run\.json: "):
        load_run(run)


@pytest.mark.parametrize("levels", [40, 60, 900])
def test_free_form_fields_may_be_nested_but_not_deeply(run, levels):
    value: object = "x"
    for _ in range(levels):
        value = [value]
    rewrite_header(run, protocol={"deep": value})
    if levels < 50:
        assert load_run(run).header.protocol == {"deep": value}
        return
    with pytest.raises(RecordsError, match=r"run\.json: .* nested deeper than 50 levels"):
        load_run(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score": 1000.0}, "score is 1000, and 'accuracy' ranges from 0 to 100"),
        ({"score": -50.0}, "score is -50"),
        ({"score": 1e308}, r"score is 1e\+308"),
        ({"score": 10**400}, "too large"),
        ({"png_score": 101.0}, "png_score is 101"),
        ({"distance": -1.0}, "distance is -1"),
        ({"distance": "inf"}, "distance is inf"),
        ({"distance": "nan"}, "distance is nan"),
        ({"distance": 2.1}, "distance is 2.1, beyond the radius 2"),
        ({"distance": 2.003}, "distance is 2.003, beyond the radius 2"),
        ({"radius": 3.0}, "radius is 3, and the run's are 2.0, 4.0"),
        ({"radius": "inf"}, "radius is inf"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"seconds": "nan"}, "seconds is nan"),
        ({"evaluations": -1}, "evaluations must be a count"),
        ({"evaluations": 10**30}, "evaluations must be a count"),
        ({"evaluations": 10**400}, "evaluations must be a count"),
        ({"seconds": 10**400}, "too large"),
        ({"radius": 10**400}, "too large"),
        ({"distance": 10**400}, "too large"),
        ({"loss": 10**400}, "too large"),
        ({"png_score": -(10**400)}, "too large"),
        ({"sample_id": 7}, "sample_id must be a string"),
        ({"prediction": None}, "prediction must be a string"),
        ({"loss_curve": [[1.0]]}, "is not a number"),
        ({"loss": {}}, "is not a number"),
        ({"group": "another"}, "sample 's0' has two groups"),
    ],
    ids=str,
)
def test_a_record_that_cannot_be_is_refused_naming_file_line_and_field(run, changes, words):
    rewrite_record(run, 3, **changes)
    with pytest.raises(RecordsError, match=rf"records\.jsonl, line 3: .*{words}"):
        load_run(run)


def test_values_at_the_edges_of_their_ranges_are_taken(run):
    rewrite_record(run, 1, score=0.0)
    rewrite_record(run, 3, score=100.00000001, distance=2.0015)
    rewrite_record(run, 4, score="nan", error="NaN", distance="nan")
    assert [r.error for r in load_run(run).records] == [None, None, None, "NaN", None, None]


@pytest.mark.parametrize(
    ("header", "score", "fits"),
    [
        ({"metric": "CIDEr"}, 250.0, True),
        ({"metric": "CIDEr"}, 1000.0005, True),  # rounding
        ({"metric": "CIDEr"}, 1000.01, False),
        ({"metric": "cider-d"}, 1001.0, False),
        ({"metric": "accuracy (%)"}, 100.00005, True),
        ({"metric": "accuracy (%)"}, 100.001, False),
        ({"metric": "accuracy (%)"}, -0.00005, True),
        ({"metric": "accuracy (%)"}, -0.001, False),
        ({"metric": "CIDEr"}, -1.0, False),
        ({"metric": "CIDEr"}, 1e308, False),
        ({"metric": "log-likelihood", "ceiling": None}, -1e6, True),
        ({"metric": "F1", "ceiling": 1.0}, 1.0, True),
        ({"metric": "F1", "ceiling": 1.0}, 1.1, False),
    ],
)
def test_scores_range_as_their_metric_does_when_written_and_when_read(tmp_path, header, score, fits):
    with open_run(tmp_path / "run", make_header(**header)) as store:
        if fits:
            store.append([make_record(score=score)])
        else:
            with pytest.raises(RecordsError, match="cannot be recorded: score is"):
                store.append([make_record(score=score)])
    assert len(load_run(tmp_path / "run").records) == fits


# ---- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 5, 20, -1, -8])
def test_an_archive_cut_short_is_refused_naming_the_file(run, tmp_path, keep):
    archive_run(run, tmp_path / "archive")
    path = tmp_path / "archive" / ARCHIVED
    assert len(load_run(path.parent).records) == 6
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordsError, match=r"records\.jsonl\.gz"):
        load_run(path.parent)


def test_an_archive_with_a_flipped_bit_is_refused_naming_the_file(run, tmp_path):
    archive_run(run, tmp_path / "archive")
    path = tmp_path / "archive" / ARCHIVED
    content = path.read_bytes()
    for place in range(len(content)):
        if place in range(4, 10):  # time, level and system of the gzip header say nothing of the content
            continue
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            assert gzip.decompress(path.read_bytes()) == gzip.decompress(content)
        except Exception:
            with pytest.raises(RecordsError, match=r"records\.jsonl\.gz"):
                load_run(path.parent)


def test_a_complete_run_without_records_is_refused(run):
    (run / "records.jsonl").unlink()
    with pytest.raises(RecordsError, match="has no records"):
        load_run(run)


def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_refused_and_never_waited_for(run):
    for name in ("records.jsonl", "run.json"):
        (run / name).rename(run / f"{name}.bak")
        os.mkfifo(run / name)
        with pytest.raises(RecordsError, match=f"{name} is no file"):
            load_run(run)
        (run / name).unlink()
        (run / name).mkdir()
        with pytest.raises(RecordsError, match=f"{name} is no file"):
            load_run(run)
        (run / name).rmdir()
        (run / f"{name}.bak").rename(run / name)
    assert len(load_run(run).records) == 6


# ---- links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "records.jsonl"])
def test_a_link_in_a_run_is_not_read(run, tmp_path, name):
    (run / name).rename(tmp_path / "moved")
    (run / name).symlink_to(tmp_path / "moved")
    with pytest.raises(RecordsError, match=f"{name}.*link"):
        load_run(run)


def test_an_archive_that_is_a_link_is_not_read(run, tmp_path):
    archive_run(run, tmp_path / "archive")
    (tmp_path / "archive" / ARCHIVED).rename(tmp_path / "moved")
    (tmp_path / "archive" / ARCHIVED).symlink_to(tmp_path / "moved")
    with pytest.raises(RecordsError, match=f"{ARCHIVED}.*link"):
        load_run(tmp_path / "archive")


@pytest.mark.parametrize("name", ["run.json", "records.jsonl", "records.torn", "lock"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_a_run_is_not_written_through(tmp_path, name, there):
    target, run = tmp_path / "precious", tmp_path / "run"
    run.mkdir()
    if there:
        target.write_text("precious")
    (run / name).symlink_to(target)
    with pytest.raises(RecordsError, match=f"{name} is a link to .*precious"):
        open_run(run, make_header())
    assert target.read_text() == "precious" if there else not target.exists()
    assert os.listdir(run) == [name]


def test_a_run_that_is_a_link_itself_is_not_written_to_but_may_be_read(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    before = sorted(os.listdir(run))
    with pytest.raises(RecordsError, match="link is a link to"):
        open_run(tmp_path / "link", read_header(run))
    assert sorted(os.listdir(run)) == before
    assert len(load_run(tmp_path / "link").records) == 6
    assert find_runs(tmp_path / "link") == [tmp_path / "link"]


@pytest.mark.parametrize("name", [ARCHIVED, "run.json"])
def test_an_archive_is_not_written_through_a_link(run, tmp_path, name):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(RecordsError, match=f"{name} is a link"):
        archive_run(run, tmp_path / "archive")
    assert not (tmp_path / "precious").exists()


def test_the_name_of_a_file_that_is_being_written_is_no_way_through_either(run, tmp_path):
    planted = run / f".run.json.{os.getpid()}.tmp"
    planted.symlink_to(tmp_path / "precious")
    with open_run(run, read_header(run)) as store:
        store.append([make_record("s9")])
    assert not (tmp_path / "precious").exists()
    assert read_header(run).status == "started"
