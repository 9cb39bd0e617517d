"""Whole training jobs that are killed, and go on by the same command."""

import random
import signal

import torch

from bench.models.encoders.load import load_encoder
from bench.train.stream import skipped_names
from tests.bench.running.kills import carry_out
from tests.bench.train.commands import ARCH, events, same_weights, steps, train_command
from tests.bench.train.kills import arm, doomed
from tests.commands import together

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


def test_killed_again_and_again_it_ends_with_the_same_bits(images, finished, tmp_path):
    """While attacking, updating, writing, resuming, evaluating, exporting."""
    words = train_command(images, tmp_path / "out")
    ends, said = carry_out(*([words, moment, nth] for moment, nth in KILLS), by=arm)
    assert ends == [-signal.SIGKILL] * (len(KILLS) - 1) + [0], said
    assert same_weights(finished, tmp_path / "out")
    assert steps(finished) == steps(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in finished.iterdir())
    tags = [event for path in (tmp_path / "out" / "tensorboard").iterdir() for event in events(path)]
    assert any(event.HasField("session_log") for event in tags)  # where TensorBoard drops the steps taken twice


def test_killed_at_random_moments_it_ends_with_the_same_bits(images, finished, tmp_path):
    """At whatever the process is about after a random time on the processor, in milliseconds."""
    words = train_command(images, tmp_path / "out")
    plan = [[words, "timer", random.randint(300, 2500)] for _ in range(6)] + [[words, "none", 0]]
    ends, said = carry_out(*plan, by=arm)
    assert ends[-1] == 0, (plan, said)
    assert -signal.SIGPROF in ends
    assert same_weights(finished, tmp_path / "out"), plan
    assert steps(finished) == steps(tmp_path / "out"), plan


def _in_two_processes(words, rank=0, moment="none", nth=0):
    """How two processes end of which one may die, and what they said.

    Once one has died the other is told to end, as torchrun does.
    """
    both = together(doomed, words, rank, moment, nth)
    if both[rank].wait() != 0:
        both[1 - rank].send(signal.SIGTERM)
    return [one.wait() for one in both], [one.stderr for one in both]


def test_two_processes_of_which_one_dies_end_as_one_process_does(images, finished, tmp_path):
    """The whole command over gloo: killed at step 5 in one of them, resumed, equal up to rounding."""
    words = train_command(images, tmp_path / "out")
    ends, said = _in_two_processes(words, 1, "attacking", 6)
    assert ends[1] == -signal.SIGKILL, said
    assert ends[0] != 0
    assert not (tmp_path / "out" / "visual.pt").exists()
    ends, said = _in_two_processes(words)
    assert ends == [0, 0], said
    assert steps(finished) == steps(tmp_path / "out")
    assert skipped_names(tmp_path / "out" / "skipped.jsonl") == skipped_names(finished / "skipped.jsonl")
    assert "2 process(es)" in (tmp_path / "out" / "README.md").read_text()
    pixels = torch.rand(8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two, start = (load_encoder(str(d))(pixels) for d in (finished, tmp_path / "out", ARCH))
    assert (one - two).norm() < 0.02 * (one - start).norm()
