"""A configuration made again from a run's header."""

from bench.config.reload import config_of

from tests.bench.runs import make_header


def test_where_the_data_lay_is_taken_from_the_run(tmp_path):
    header = make_header(config={"data_root": str(tmp_path), "arch": "ViT-L-14"}, limit=30, n_samples=30)
    config = config_of(header)
    assert (config.data_root, config.arch, config.n_samples, config.attack) == (tmp_path, "ViT-L-14", 30, "none")
    assert config_of(header, data_root=tmp_path / "moved").data_root == tmp_path / "moved"
    assert config_of(make_header()).data_root is None
