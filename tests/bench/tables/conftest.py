"""Runs that several modules of tests tabulate."""

import pytest

from tests.bench.tables.made import BAD, GOOD, vlm_run


@pytest.fixture
def vision(tmp_path):
    """Two encoders on VQA, one of them on captions too."""
    return [
        vlm_run(tmp_path, "fare4", {0: GOOD, 2: GOOD, 4: BAD}),
        vlm_run(tmp_path, "clip", {0: GOOD, 2: BAD, 4: BAD}),
        vlm_run(tmp_path, "clip", {0: GOOD, 4: BAD}, dataset="mini-caption", task="captioning", metric="CIDEr"),
    ]
