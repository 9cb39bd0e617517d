"""Thousands of damaged runs: each is read right or refused by one error that names a file, never anything else."""

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli import main
from bench.records import ARCHIVED, Record, RecordsError, RunHeader, archive_run, load_run
from bench.records.reading import decode
from bench.records.samples import FILE, Asked, read_samples, write_samples
from bench.records.worst import groups_at, groups_of, kept_records, scores_at, unscored, worst_scores
from bench.regression.baseline import scores_text
from bench.regression.compare import compare_to_baseline
from tests.bench.runs import make_run

SOME, MANY = 100, 2000
VALUES = [
    None, True, False, 0, -1, 1, 2.5, 1e308, -1e-308, 10**25, 10**400, "", "x", "nan", "inf", "1" * 5000, "\ud800",
    "a\nb", "\x1b]0;x\x07", "../../etc", "/etc/passwd", [], {}, [None], ["x"], [1.0, 2.0], {"name": 1}, [{"name": "a"}],
    [{"name": "a", "ok": 1, "detail": None}], {"encoder": "a"}, [[[[]]]], "clean", "mini", "linf", "min", "complete",
]  # fmt: skip
PIECES = [b"", b"{", b"}", b"[" * 2000, b'"', b",", b"\n", b"\0", b"\xff", b"NaN", b"1e999", b"9" * 5000, b"null"]


def damaged_value(value: object, rng: random.Random) -> object:
    """The value with one place in it replaced, left out or added to."""
    if isinstance(value, dict) and value and rng.random() < 0.7:
        key = rng.choice(list(value))
        kept = {name: item for name, item in value.items() if name != key}
        changed = {**value, key: damaged_value(value[key], rng)}
        return rng.choice([kept, {**value, "colour": 1}, changed, changed, changed])
    if isinstance(value, list) and value and rng.random() < 0.5:
        place = rng.randrange(len(value))
        return [*value[:place], damaged_value(value[place], rng), *value[place + 1 :]]
    return rng.choice(VALUES)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content cut short, with a flipped bit, or with something put into it or taken out of it."""
    place = rng.randrange(len(content))
    length = rng.randrange(1, 20)
    return [
        content[:place],
        content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :],
        content[:place] + rng.choice(PIECES) + content[place:],
        content[:place] + content[place + length :],
        rng.randbytes(length),
    ][rng.randrange(5)]


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A file of one JSON object, or of one a line, damaged as text or in one value."""
    if rng.random() < 0.3:
        return damaged_bytes(content, rng)
    if not content.startswith(b"{\n"):
        lines = content.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        line = json.dumps(damaged_value(json.loads(lines[number]), rng)).encode() + b"\n"
        return b"".join([*lines[:number], line, *lines[number + rng.randrange(2) :]])
    return json.dumps(damaged_value(json.loads(content), rng)).encode()


def damaged_archive(content: bytes, rng: random.Random) -> bytes:
    """A compressed file, damaged itself or in what it holds."""
    if rng.random() < 0.5:
        return damaged_bytes(content, rng)
    return gzip.compress(damaged_json(gzip.decompress(content), rng), mtime=0)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "run.json": damaged_json,
    "records.jsonl": damaged_json,
    ARCHIVED: damaged_archive,
    FILE: damaged_json,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run of four samples with what a header can hold, and the same archived."""
    root = tmp_path_factory.mktemp("sound")
    scores = {0: [100.0, 100.0, 100.0, 0.0], 2: [50.0, 100.0, 100.0, 0.0], 4: [0.0, 100.0, 50.0, 0.0]}
    make_run(
        root / "run",
        scores,
        checks=[{"name": "no_errors", "ok": True, "detail": ""}],
        protocol={"precision": "float32", "name": "strict", "surrogate": None},
        config={"data_root": None, "arch": None, "limit": None},
    )
    write_samples(root / "run", [Asked(f"s{i}", "what?", ("a", "b")) for i in range(4)])
    archive_run(root / "run", root / "archive")
    return root


def exactly(directory: Path, header: RunHeader) -> list[Record]:
    """The records by the reader that looks at each line by itself."""
    path = directory / "records.jsonl"
    content = path.read_bytes() if path.exists() else gzip.decompress((directory / ARCHIVED).read_bytes())
    return decode(content.split(b"\n")[:-1], path, header)


def use(directory: Path) -> None:
    """Everything that the showing wing asks of a run; only what is refused at reading may be refused at all."""
    run = load_run(directory)
    header, records = run.header, run.records
    assert RunHeader.from_json(header.to_json()) == header
    names = [name for name, value in vars(RunHeader).items() if isinstance(value, property)]
    assert len([getattr(header, name) for name in names]) > 10
    exact = exactly(directory, header)
    assert [record.to_json() for record in records] == [record.to_json() for record in exact]  # NaN equals no NaN
    assert groups_at(run) == groups_of(exact)
    for radius in (0.0, *header.radii):
        scores = worst_scores(header, exact, radius)
        assert scores_at(run, radius) == scores
        assert scores.keys().isdisjoint(unscored(header, records, radius))
        assert all(abs(score) < 1e300 for score in scores.values())
    assert kept_records(header, records).keys() <= {(r.sample_id, r.radius) for r in records}
    assert groups_of(records).keys() == {r.sample_id for r in records}
    scores_text(run)
    compare_to_baseline([run], [run])
    read_samples(directory)


def try_out(sound: Path, place: Path, name: str, seed: int) -> None:
    """Damage one file of a run, and read it."""
    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(sound / ("archive" if name == ARCHIVED else "run"), run)
    (run / name).write_bytes(DAMAGES[name]((run / name).read_bytes(), random.Random(seed)))
    try:
        use(run)
    except RecordsError as error:
        assert str(run) in str(error)  # noqa: PT017 - not every damage is one that can be seen
    if seed % 20 == 0:
        for words in (["table"], ["compare", str(sound / "run")], ["check", "--rerun", "0", "--baseline"]):
            result = CliRunner().invoke(main, [*words, str(run)])
            assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
            assert result.exit_code in (0, 1, 2)


@pytest.mark.parametrize("name", DAMAGES)
@settings(max_examples=SOME, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_a_damaged_run_is_read_right_or_refused_by_name(sound, tmp_path_factory, name, seed):
    try_out(sound, tmp_path_factory.getbasetemp(), name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
@settings(max_examples=MANY, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_many_damaged_runs_are_read_right_or_refused_by_name(sound, tmp_path_factory, name, seed):
    try_out(sound, tmp_path_factory.getbasetemp(), name, seed)
