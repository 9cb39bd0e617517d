"""Damaged suite files: each is read for what it says, or refused by name."""

import json
import tomllib
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.config import Request, Suite, load_suite, resolve
from bench.errors import UsageError
from tests.bench.config.test_suite import OWN

WORDS = (
    '"', "'", "[", "]", "[[", "]]", "{", "}", "=", "\n", "\x00", "\ud7ff", "é", "1e400", "-1", "0", "nan", "true", "[]",
    "9" * 30, "1979-05-27", "base", "mini", "own.toml", "name", "eps", "l2", "tasks", "runs", "vqa", "none", "../..",
)  # fmt: skip
KEYS = (
    "base", "name", "about", "encoders", "vlm", "norm", "eps", "seed", "conversation", "tasks", "datasets", "attacks",
    "runs", "folder", "samples", "attack", "optional", "defaults", "format", "steps", "kind", "goal", "options", "a b",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["mini", "paper", "own.toml", "l2", "vqa", "apgd", "transfer", "mini-shape", "../x", "\x00", "", "é"]
    ),
    st.integers(-2, 300),
    st.sampled_from([10**30, -(2**63), 2**63, 1e308, -0.5, 0.25, float("nan"), float("inf"), True, date(1979, 5, 27)]),
    st.sampled_from([[], [1], [[]], ["mini-shape"], [{}], {}, {"a": 1}, {"format": "vqa"}, [0.5, 2]]),
)


@st.composite
def mistyped(draw) -> str:
    """A good suite file with a few characters or words changed."""
    text = OWN
    for _ in range(draw(st.integers(1, 3))):
        at, cut = draw(st.integers(0, len(text))), draw(st.integers(0, 4))
        new = draw(st.one_of(st.sampled_from(WORDS), st.characters(codec="utf-8")))
        text = text[:at] + new + text[at + cut :]
    return text


@st.composite
def rearranged(draw) -> str:
    """A good suite file with a few keys and values changed for others."""
    table = tomllib.loads(OWN)
    for _ in range(draw(st.integers(1, 3))):
        inner: Any = table
        while children := [one for one in (inner.values() if isinstance(inner, dict) else inner) if one and
                           isinstance(one, dict | list)]:  # fmt: skip
            if draw(st.integers(0, 2)) == 0:
                break
            inner = draw(st.sampled_from(children))
        places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = draw(st.sampled_from([*places, *(KEYS if isinstance(inner, dict) else ())]))
        if place in places and draw(st.integers(0, 3)) == 0:
            del inner[place]
        else:
            inner[place] = deepcopy(draw(VALUES))
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items())


def toml(value: Any) -> str:
    """A value as TOML writes it within a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if isinstance(value, date) else json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


damaged = st.one_of(mistyped(), rearranged(), rearranged())


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
@given(text=damaged)
def test_a_hundred_damaged_suites_are_read_or_refused_by_name(folder, text):
    examine(folder, text)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=damaged)
def test_two_thousand_damaged_suites_are_read_or_refused_by_name(folder, text):
    examine(folder, text)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_name(folder, content):
    path = folder / "bytes.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        load_suite(str(path))
