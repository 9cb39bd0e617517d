"""Whole training jobs that are killed, and go on by the same command."""

import json
import os
import random
import signal
import subprocess
import sys

import torch

from bench.models.encoders.load import load_encoder
from bench.train.stream import skipped_names
from tests.bench.train.commands import ARCH, events, same_weights, steps, train_command

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}


KILLS = [  # moment, and its which visit; every line is the same command again
    ("attacking", 3),
    ("saving", 1),
    ("updating", 2),
    ("replacing", 2),
    ("resuming", 1),
    ("forgetting", 1),
    ("resumed", 1),
    ("updated", 1),
    ("evaluating", 1),
    ("replaced", 3),
    ("exporting", 1),
    ("none", 0),
]


def _killed(plan):
    """How real processes end that give commands and die at planned moments."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.train.kills", json.dumps(plan)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return json.loads(done.stdout)


def test_killed_again_and_again_it_ends_with_the_same_bits(images, finished, tmp_path):
    """While attacking, updating, writing, resuming, evaluating, exporting."""
    words = train_command(images, tmp_path / "out")
    ends = _killed([[words, moment, nth] for moment, nth in KILLS])
    assert ends == [-signal.SIGKILL] * (len(KILLS) - 1) + [0]
    assert same_weights(finished, tmp_path / "out")
    assert steps(finished) == steps(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in finished.iterdir())
    tags = [event for path in (tmp_path / "out" / "tensorboard").iterdir() for event in events(path)]
    assert any(event.HasField("session_log") for event in tags)  # where TensorBoard drops the steps taken twice


def test_killed_at_random_moments_it_ends_with_the_same_bits(images, finished, tmp_path):
    """At whatever the process is about after a random time on the processor, in milliseconds."""
    words = train_command(images, tmp_path / "out")
    plan = [[words, "timer", random.randint(300, 2500)] for _ in range(6)] + [[words, "none", 0]]
    ends = _killed(plan)
    assert ends[-1] == 0, plan
    assert -signal.SIGPROF in ends
    assert same_weights(finished, tmp_path / "out"), plan
    assert steps(finished) == steps(tmp_path / "out"), plan


def _in_two_processes(*arguments):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.bench.train.kills",
        *arguments,
    ]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def test_two_processes_of_which_one_dies_end_as_one_process_does(images, finished, tmp_path):
    """The whole command under torchrun, over gloo: killed at step 5 in one of them, resumed, equal up to rounding."""
    words = train_command(images, tmp_path / "out")
    died = _in_two_processes("1", "attacking", "6", *words)
    assert died.returncode != 0
    assert not (tmp_path / "out" / "visual.pt").exists()
    done = _in_two_processes("1", "none", "0", *words)
    assert done.returncode == 0, done.stderr
    assert steps(finished) == steps(tmp_path / "out")
    assert skipped_names(tmp_path / "out" / "skipped.jsonl") == skipped_names(finished / "skipped.jsonl")
    assert "2 process(es)" in (tmp_path / "out" / "README.md").read_text()
    pixels = torch.rand(8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two, start = (load_encoder(str(d))(pixels) for d in (finished, tmp_path / "out", ARCH))
    assert (one - two).norm() < 0.02 * (one - start).norm()
