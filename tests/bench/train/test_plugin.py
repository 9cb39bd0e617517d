"""A training objective of an installed plugin, trained with for two steps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.train.commands import train_command

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The example plugin, really installed into a folder of its own."""
    target, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(ROOT / "tests" / "plugin", source)  # building leaves files beside the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(target), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}


def test_an_objective_of_a_plugin_is_a_command_and_trains(environment, images, tmp_path):
    def bench(*words):
        command = [sys.executable, "-m", "bench", *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert "steady" in bench("train", "--help")
    assert "the objective steady" in bench("train", "steady", "--help")
    words = train_command(images, tmp_path / "out", "--steps", "2", "--warmup", "0", method="steady")
    assert bench(*words) == f"{tmp_path / 'out'}\n"
    assert "square root of one plus the squared difference" in (tmp_path / "out" / "README.md").read_text()
