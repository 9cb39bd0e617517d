"""Damaged suite files: each is read for what it says, or refused by name."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.config import Request, Suite, load_suite, resolve
from bench.errors import UsageError
from tests.bench.config.test_suite import OWN

WORDS = (
    '"', "'", "[", "]", "[[", "]]", "{", "}", "=", "\n", "\x00", "\ud7ff", "é", "1e400", "-1", "0", "nan", "inf",
    "true", "[]", "{}", '""', "1979-05-27", "9" * 30, "base", "mini", "paper", "own.toml", "name", "eps", "seed", "norm", "l2",
    "tasks", "datasets", "attacks", "runs", "vqa", "zeroshot", "apgd", "none", "samples", "folder", "../..", "/",
    "steps",
)  # fmt: skip
KEYS = (
    "base", "name", "about", "encoders", "vlm", "norm", "eps", "seed", "conversation", "tasks", "datasets", "attacks",
    "runs", "folder", "tasks.vqa", "tasks.zeroshot.samples", "tasks.zeroshot.datasets", "datasets.shapes.samples",
    "datasets.x", "attacks.quick", "attacks.slow", "attacks.quick.steps", "image_aspect_ratio",
)  # fmt: skip
VALUES = (
    "1", "-1", "2.5", "nan", "inf", '"x"', '"mini"', '"own.toml"', "[]", "[1]", "[[]]", "{}", "{a = 1}", "[{}]", "true",
    "1979-05-27", '["mini-shape"]', '"l2"', '{format = "vqa"}', "[" * 60 + "]" * 60, "9" * 30, "1e308", '"\\u0000"',
)  # fmt: skip


@st.composite
def damaged(draw) -> str:
    """A good suite file with a few lines, words and characters changed."""
    lines = OWN.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "double", "assign", "word", "character", "swap"]))
        line = lines[where]
        if kind == "drop":
            del lines[where]
        elif kind == "double":
            lines.insert(where, line)
        elif kind == "assign":
            lines.insert(
                draw(st.sampled_from([0, where])), f"{draw(st.sampled_from(KEYS))} = {draw(st.sampled_from(VALUES))}"
            )
        elif kind == "swap":
            lines[where] = f"{line.partition('=')[0]}= {draw(st.sampled_from(VALUES))}"
        else:
            at = draw(st.integers(0, len(line)))
            new = draw(st.sampled_from(WORDS) if kind == "word" else st.characters(codec="utf-8"))
            lines[where] = line[:at] + new + line[at + draw(st.integers(0, 4)) :]
        lines = lines or [""]
    return "\n".join(lines)


def examine(folder: Path, text: str) -> None:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    refusal = ""
    try:
        suite = load_suite(str(path))
        configs = resolve(Request.of(suite=str(path), encoder="clip", task="all"))
    except UsageError as error:
        refusal = str(error)
    if refusal:
        assert str(path) in refusal or "--surrogate" in refusal
        return
    assert isinstance(suite, Suite)
    for config in configs:
        assert config.n_samples >= 1
        assert all(eps > 0 for eps in config.eps)
        assert config.directory.parent.parent.parent == Path("results/runs"), "nothing is written elsewhere"
        assert config.attack == "none" or config.steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(text=damaged())
def test_a_hundred_damaged_suites_are_read_or_refused_by_name(folder, text):
    examine(folder, text)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=damaged())
def test_two_thousand_damaged_suites_are_read_or_refused_by_name(folder, text):
    examine(folder, text)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_name(folder, content):
    path = folder / "bytes.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        load_suite(str(path))
