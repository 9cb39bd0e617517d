"""Fixtures of the runner's tests."""

import pytest

from tests.bench.toy_runs import run


@pytest.fixture
def attack(tmp_path, monkeypatch):
    made = iter(range(100))

    def go(steps, **changes):
        return run(tmp_path / str(next(made)), steps, monkeypatch=monkeypatch, **changes)

    return go
