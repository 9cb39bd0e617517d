"""Transfer: which pairs run."""

import pytest

from bench.config import Request, resolve
from bench.errors import UsageError


def test_several_surrogates_give_a_run_for_every_pair():
    configs = resolve(Request.of(encoder="clip,fare", task="vqa", surrogate="clip,fare4", attack="transfer"))
    assert [(c.encoder, c.surrogate) for c in configs] == [
        ("clip", "clip"), ("clip", "fare4"), ("fare4", "clip"), ("fare4", "fare4"),
    ]  # fmt: skip
    assert len({c.directory for c in configs}) == 4


def test_a_transfer_needs_a_surrogate():
    with pytest.raises(UsageError, match="needs --surrogate"):
        resolve(Request.of(encoder="clip", task="vqa", attack="transfer"))
