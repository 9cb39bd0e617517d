"""Ctrl-C and SIGTERM while training, and what a log shows."""

import os
import signal

import pytest
import torch

from bench.train.distributed import World
from bench.train.step import Stepper
from bench.train.stopping import Interrupted, Stop
from tests.bench.train.commands import invoke, same_weights, steps, train_command
from tests.bench.train.test_checkpoint import _fit
from tests.commands import bench


def _signalled(at, number):
    """A loss that is interrupted amid the update of a step."""

    def loss(model, step):
        if step == at:
            os.kill(os.getpid(), number)
        return model(torch.ones(1, 2)).square().sum()

    return loss


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_update_under_way_is_finished_and_saved(tmp_path, number):
    whole = _fit(tmp_path / "whole", steps=9)
    before = signal.getsignal(number)
    with pytest.raises(
        Interrupted, match=rf"{number.name} after 6 of 9 updates, which are saved in .*checkpoint.pt"
    ) as stopped:
        _fit(tmp_path / "cut", steps=9, loss=_signalled(5, number), every=100)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == 6
    assert torch.equal(_fit(tmp_path / "cut", steps=9, every=100).weight, whole.weight)


def test_a_signal_in_the_last_update_changes_nothing(tmp_path):
    whole = _fit(tmp_path / "whole", steps=4)
    assert torch.equal(_fit(tmp_path / "cut", steps=4, loss=_signalled(3, signal.SIGINT)).weight, whole.weight)


def test_a_second_signal_acts_at_once():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked(World()) == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked(World()) is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_ends_with_one_line_and_code_130_and_goes_on(images, finished, tmp_path, monkeypatch):
    """Far from any checkpoint that is due; in the end the weights are those of an uninterrupted run."""
    accumulate, calls = Stepper._accumulate, []

    def signalling(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return accumulate(*arguments)

    monkeypatch.setattr(Stepper, "_accumulate", signalling)
    words = train_command(images, tmp_path / "out", "--checkpoint-every", "100")
    done = invoke(words)
    assert done.exit_code == 130
    said = [line for line in done.stderr.splitlines() if line.startswith("bench:")]
    assert said == [
        f"bench: stopped by SIGINT after 3 of 8 updates, which are saved in {tmp_path / 'out' / 'checkpoint.pt'}; the "
        "same command goes on from there"
    ]
    assert "Aborted" not in done.output
    assert invoke(words).exit_code == 0
    assert same_weights(finished, tmp_path / "out")
    assert steps(finished) == steps(tmp_path / "out")


def test_a_log_holds_lines_and_no_bars(images, tmp_path):
    words = train_command(images, tmp_path / "out", "--steps", "2", "--warmup", "0")
    done = bench(*words)
    assert done.poll() == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert "\r" not in done.stderr
    assert "|" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fare: ")]
    assert line.startswith("fare: 2 of 2, loss ")
