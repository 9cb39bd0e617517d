"""Transfer: which pairs run, and the matrix of their scores."""

import pandas as pd
import pytest

from bench.config import Request, resolve
from bench.errors import UsageError
from bench.tables.transfer import transfer_matrices
from tests.bench.runs import make_run


def test_several_surrogates_give_a_run_for_every_pair():
    configs = resolve(Request.of(encoder="clip,fare", task="vqa", surrogate="clip,fare4", attack="transfer"))
    assert [(c.encoder, c.surrogate) for c in configs] == [
        ("clip", "clip"), ("clip", "fare4"), ("fare4", "clip"), ("fare4", "fare4"),
    ]  # fmt: skip
    assert len({c.directory for c in configs}) == 4


def test_a_transfer_needs_a_surrogate():
    with pytest.raises(UsageError, match="needs --surrogate"):
        resolve(Request.of(encoder="clip", task="vqa", attack="transfer"))


def test_the_matrix_has_encoders_by_rows_and_surrogates_by_columns(tmp_path):
    scores = {("clip", "clip"): 0.0, ("clip", "fare4"): 30.0, ("fare4", "clip"): 90.0, ("fare4", "fare4"): 50.0}
    runs = [
        make_run(
            tmp_path / f"{encoder}-{source}", {0.0: [100.0], 4.0: [score]}, encoder=encoder,
            attack=f"transfer-from-{source}", protocol={"surrogate": source},
        )
        for (encoder, source), score in scores.items()
    ]  # fmt: skip
    ((title, matrix),) = transfer_matrices(runs)
    assert title == "vqa mini-vqa 4/255, transfer"
    wanted = pd.DataFrame({"clip": [0.0, 90.0], "fare4": [30.0, 50.0]}, index=["clip", "fare4"])
    pd.testing.assert_frame_equal(matrix, wanted)
    assert transfer_matrices(runs[:1]) == []
