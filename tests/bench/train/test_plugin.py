"""A training objective of an installed plugin, trained with for two steps."""

from tests.bench.train.commands import train_command
from tests.commands import bench


def test_an_objective_of_a_plugin_is_a_command_and_trains(plugin, images, tmp_path):
    def said(*words):
        ended = bench(*words, path=[plugin])
        assert ended.poll() == 0, ended.stderr
        return ended.stdout

    assert "steady" in said("train", "--help")
    assert "the objective steady" in said("train", "steady", "--help")
    words = train_command(images, tmp_path / "out", "--steps", "2", "--warmup", "0", method="steady")
    assert said(*words) == f"{tmp_path / 'out'}\n"
    assert "square root of one plus the squared difference" in (tmp_path / "out" / "README.md").read_text()
