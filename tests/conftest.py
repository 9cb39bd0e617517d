"""One thread per process: the models are small, and pytest-xdist runs a process per core. No test is timed.

On the CPU, also where there is a GPU: tests compare numbers to the last digit, with tensors that they make themselves.
`benchmarks/device.sh` holds a run on a GPU against the CPU.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands inherit it as ignored
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def plugin(tmp_path_factory) -> Path:
    """A folder to import from, with the example plugin really installed into it."""
    target, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(Path(__file__).parent / "plugin", source)  # building leaves files beside the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(target), str(source)], check=True, capture_output=True)
    return target
