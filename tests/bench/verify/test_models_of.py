"""What loads a finished run's data and models again."""

import pytest

from bench.verify import models_of
from tests.bench.runs import make_header


def test_where_the_data_lay_is_taken_from_the_run(tmp_path):
    header = make_header(config={"data_root": str(tmp_path), "arch": "ViT-L-14"}, limit=30, n_samples=30)
    config = models_of(header)
    assert (config.data_root, config.arch, config.n_samples, config.attack) == (tmp_path, "ViT-L-14", 30, "none")
    assert models_of(header, data_root=tmp_path / "moved").data_root == tmp_path / "moved"
    assert models_of(make_header()).data_root is None


@pytest.mark.parametrize(
    ("half_verdicts", "precision"), [(False, "float32"), (True, "bf16")], ids=["judged in float32", "half is final"]
)
def test_the_models_are_those_whose_answers_counted(half_verdicts, precision):
    protocol = {"precision": "bf16", "tower": "native", "half_verdicts": half_verdicts, "name": "paper"}
    config = models_of(make_header(protocol=protocol, model="owner/llava", n_samples=7, suite="mini-full"))
    assert (config.tower, config.vlm, config.protocol) == ("native", "owner/llava", "paper")
    assert (config.precision, config.samples, config.encoder) == (precision, 7, "fare4")
