"""Choosing among finished runs."""

import pytest

from bench.analysis.choose import KEYS, choose, value_of
from bench.errors import UsageError
from tests.bench.runs import in_memory

RUNS = [
    in_memory({0: [1.0]}, encoder="clip", seed=0, limit=1),
    in_memory({0: [1.0]}, encoder="fare2", seed=0),
    in_memory({0: [1.0]}, encoder="fare4", seed=1, protocol={"name": "paper", "surrogate": "clip"}),
]


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        ([], ["clip", "fare2", "fare4"]),
        ([("encoder", "fare*")], ["fare2", "fare4"]),
        ([("encoder", "clip, fare4")], ["clip", "fare4"]),
        ([("protocol", "paper")], ["fare4"]),
        ([("protocol", "strict"), ("limit", "none")], ["fare2"]),
        ([("seed", "0"), ("limit", "1")], ["clip"]),
        ([("surrogate", "none")], ["clip", "fare2"]),
        ([("partial", "none")], ["fare2", "fare4"]),
    ],
    ids=str,
)
def test_every_condition_must_fit(conditions, wanted):
    assert [run.header.encoder for run in choose(RUNS, conditions)] == wanted


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([("encoder", "tecoa")], "no run has encoder 'tecoa'; there are: clip, fare2, fare4"),
        ([("encoder", "fare2"), ("seed", "1")], "no run has seed '1'; there are: 0"),
        ([("protocl", "paper")], "did you mean 'protocol'"),
        ([("checks", "x")], "unknown property of runs 'checks'"),
    ],
    ids=str,
)
def test_what_fits_nothing_is_named(conditions, said):
    with pytest.raises(UsageError, match=said):
        choose(RUNS, conditions)


def test_every_key_has_a_value():
    assert all(isinstance(value_of(run.header, key), str) for key in KEYS for run in RUNS)
