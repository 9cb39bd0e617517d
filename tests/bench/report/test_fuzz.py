"""The report of damaged and hostile runs: a page on which nothing of them is live, or one error that names a file."""

import json
import random
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bench.cli import main
from bench.records import load_run
from bench.records.images import FOLDER, TENSOR, path_of
from bench.records.samples import FILE, Asked, write_samples
from bench.records.worst import kept_records
from tests.bench.records.test_fuzz import damaged_bytes, damaged_json
from tests.bench.report.site import HOSTILE, SCRIPT
from tests.bench.runs import make_run

SOME, MANY = 4, 200  # each draws all charts, which takes a second
TEXTS = (
    SCRIPT,
    HOSTILE,
    "</svg><script>",
    "javascript:alert(1)",
    "../../outside",
    "{{ 7 * 7 }}",
    "$\\frac$",
    "\x1b]0;x",
)


def hostile(content: bytes, rng: random.Random) -> bytes:
    """A file of one JSON object, or of one a line, of which a text, wherever it stands, is another."""
    whole = content.startswith(b"{\n")
    lines = [content] if whole else content.splitlines()
    values = [json.loads(line) for line in lines]
    places = [place for value in values for place in _texts(value)]
    inside, key = rng.choice(places)
    old, new = inside[key], rng.choice(TEXTS)
    for inside, key in places:  # a sample's id in all of its records, so that the run may stay sound
        if inside[key] == old:
            inside[key] = new
    return b"\n".join(json.dumps(value).encode() for value in values) + b"\n"


def _texts(value: object) -> list[tuple[dict | list, object]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(value, key) for key, one in inner if isinstance(one, str)] + [p for _, one in inner for p in _texts(one)]


def any_json(content: bytes, rng: random.Random) -> bytes:
    return rng.choice([hostile, hostile, damaged_json])(content, rng)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "run.json": any_json,
    "records.jsonl": any_json,
    FILE: any_json,
    "an image": damaged_bytes,
}


class Live(HTMLParser):
    """What of a page is live."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.attributes, self.places = 0, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.attributes += [name for name, _ in attrs if name.startswith("on")]
        self.places += [value for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run of four samples with the images that it kept."""
    place = tmp_path_factory.mktemp("sound") / "run"
    scores = {0: [100.0, 100.0, 100.0, 0.0], 2: [50.0, 100.0, 100.0, 0.0], 4: [0.0, 100.0, 50.0, 0.0]}
    checks = [{"name": "no_errors", "ok": False, "detail": "said"}]
    run = make_run(place, scores, checks=checks, protocol={"precision": "float32", "name": "strict"})
    write_samples(place, [Asked(f"s{i}", "what?", ("a", "b")) for i in range(4)])
    kept = [*kept_records(run.header, run.records), *((f"s{i}", 0.0) for i in range(4))]
    for sample, radius in kept:
        path = path_of(place / FOLDER, sample, radius)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({TENSOR: np.full((3, 8, 8), 0.5 + radius / 255, np.float32)}, path)
    return place


def try_out(sound: Path, place: Path, name: str, seed: int) -> None:
    """Damage one file of a run, and report the run."""
    for folder in (place / "run", place / "report"):
        shutil.rmtree(folder, ignore_errors=True)
    run, rng = Path(shutil.copytree(sound, place / "run")), random.Random(seed)
    path = rng.choice(sorted((run / FOLDER).rglob("*.safetensors"))) if name == "an image" else run / name
    path.write_bytes(DAMAGES[name](path.read_bytes(), rng))
    before = files(place.parent)
    result = CliRunner().invoke(main, ["report", str(run), "-o", str(place / "report"), "--quiet"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert all(file.is_relative_to(place / "report") for file in files(place.parent) - before)
    if result.exit_code:
        assert result.exit_code == 2
        assert str(run) in result.stderr
        return
    pages = [place / "report" / "index.html", *(place / "report" / "runs").glob("*.html")]
    assert len(pages) == 2
    for page in pages:
        live = Live(page.read_text(encoding="utf-8"))
        assert (live.scripts, live.attributes) == (1, [])
        for target in live.places:
            assert (page.parent / target.partition("#")[0]).resolve().is_relative_to(place / "report"), target


def files(place: Path) -> set[Path]:
    return set(place.rglob("*"))


def test_a_sound_run_has_its_pictures(sound, tmp_path):
    result = CliRunner().invoke(main, ["report", str(sound), "-o", str(tmp_path / "report"), "--quiet"])
    assert result.exit_code == 0
    assert len(list((tmp_path / "report" / "images").glob("*-adversarial.png"))) == 2
    assert "what?" in next((tmp_path / "report" / "runs").glob("*.html")).read_text()
    assert load_run(sound).header.status == "complete"


@pytest.mark.parametrize("name", DAMAGES)
@settings(max_examples=SOME, derandomize=True, database=None)
@given(seed=st.integers(0, 10**9))
def test_the_report_of_a_damaged_run_is_right_or_refused(sound, tmp_path_factory, name, seed):
    try_out(sound, tmp_path_factory.getbasetemp() / "one" / "place", name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
@settings(max_examples=MANY, database=None)
@given(seed=st.integers(0, 10**9))
def test_many_reports_of_damaged_runs_are_right_or_refused(sound, tmp_path_factory, name, seed):
    try_out(sound, tmp_path_factory.getbasetemp() / "one" / "place", name, seed)
