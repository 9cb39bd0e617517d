"""Checkpoints and the loop that writes them: full disks, damage, explosions, random states."""

import io
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.train.checkpoint import TrainingError, prepare_directory
from bench.train.hooks import Hooks, Update
from bench.train.loop import fit, train
from bench.train.schedule import Schedule


def _fit(directory, width=2, steps=4, loss=None, hooks=None, every=1):
    torch.manual_seed(0)
    model = torch.nn.Linear(width, 1)

    def gradients(step):
        value = model(torch.ones(1, width)).square().sum() if loss is None else loss(model, step)
        value.backward()
        return Update(value.item(), {})

    schedule = Schedule(steps, 1, 1e-3)
    train("t", {"m": model}, gradients, schedule, directory, settings={}, checkpoint_every=every, hooks=hooks)
    return model


def test_a_full_disk_keeps_the_older_checkpoint_and_resumes(tmp_path):
    """A real write error: the kernel refuses files above a size."""
    whole = _fit(tmp_path / "whole", 20_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def tighten(model, step):
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        return model(torch.ones(1, 20_000)).square().sum()

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(
            TrainingError, match=r"cannot write .*checkpoint\.pt after step 3.*the one before it is whole"
        ):
            _fit(tmp_path / "full", 20_000, loss=tighten)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert [p.name for p in (tmp_path / "full").glob("*.tmp")] == []
    resumed = _fit(tmp_path / "full", 20_000)
    assert torch.equal(resumed.weight, whole.weight)


def test_too_little_room_is_seen_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(TrainingError, match=r"0\.0 GB free; two checkpoints"):
        prepare_directory(tmp_path, {"m": torch.nn.Linear(2, 2)})


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"cannot write in .*file/run"):
        prepare_directory(tmp_path / "file" / "run", {})


def test_a_damaged_checkpoint_and_another_architecture_are_named(tmp_path):
    _fit(tmp_path)
    with pytest.raises(TrainingError, match="does not fit the architecture of m"):
        _fit(tmp_path, width=3)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match="is damaged"):
        _fit(tmp_path)
    flipped = bytearray(content)
    flipped[content.index(_value_bytes(content)) + 2] ^= 1  # a weight; torch itself would load it
    (tmp_path / "checkpoint.pt").write_bytes(flipped)
    with pytest.raises(TrainingError, match="is damaged"):
        _fit(tmp_path)


def _value_bytes(content):
    """The weights as they lie in the file."""
    return torch.load(io.BytesIO(content), weights_only=True)["modules"]["m"]["weight"].numpy().tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is no checkpoint of bench train"),
        ({"step": 1}, "is no checkpoint of bench train"),
        (Path("x"), "is damaged"),  # a Python object, which torch refuses and advises to load all the same
        (b"junk", "is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named_and_nobody_is_told_to_run_it(tmp_path, content, message):
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(TrainingError, match=message) as caught:
        _fit(tmp_path)
    assert "weights_only" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["modules", "optimizer", "random", "recent", "step"])
def test_a_checkpoint_with_a_part_of_another_form_is_refused(tmp_path, key):
    _fit(tmp_path, steps=2)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    other = {"modules": {"m": [1]}, "optimizer": {"state": 1}, "random": {"torch": 3}, "recent": ["a"], "step": -1}
    torch.save(state | {key: other[key]}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"is damaged|does not fit the architecture of m"):
        _fit(tmp_path, steps=2)


def test_an_exploding_loss_and_a_gradient_that_is_not_finite_stop_the_run_before_its_weights(tmp_path):
    def exploding(model, step):
        return model(torch.ones(1, 2)).square().sum() * (1e4 if step == 15 else 1)

    hooks = Hooks(describe=lambda step: "a.jpg, b.jpg")
    with pytest.raises(
        TrainingError, match=r"exploded to .* at step 15 .*checkpoint\.pt\. Images of that step: a\.jpg"
    ):
        _fit(tmp_path / "a", steps=20, loss=exploding, hooks=hooks)

    def infinite(model, step):
        return (model(torch.ones(1, 2)) * (0 if step == 2 else 1)).abs().sqrt().sum()  # slope of the root at 0

    with pytest.raises(TrainingError, match=r"the gradient has norm (inf|nan) at step 2"):
        _fit(tmp_path / "b", loss=infinite)
    saved = torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 2
    assert all(v.isfinite().all() for v in saved["modules"]["m"].values())


def test_a_run_that_exploded_explodes_again_when_resumed(tmp_path):
    """The losses by which the next one is judged lie in the checkpoint."""

    def exploding(model, step):
        return model(torch.ones(1, 2)).square().sum() * (1e4 if step == 15 else 1)

    for _ in range(2):
        with pytest.raises(TrainingError, match=r"exploded to .* at step 15"):
            _fit(tmp_path, steps=20, loss=exploding)


def test_random_states_are_part_of_a_checkpoint(tmp_path):
    """A model that draws from the global generators resumes as if nothing had happened."""

    def noisy(model, step):
        if step == stop:
            raise KeyboardInterrupt
        noise = torch.randn(1, 2) + random.random() + float(np.random.rand())
        return model(noise).square().sum()

    def seeded(directory):
        random.seed(1)
        np.random.seed(1)
        return _fit(directory, steps=8, loss=noisy)

    stop = None
    whole = seeded(tmp_path / "whole")
    stop = 5
    with pytest.raises(KeyboardInterrupt):
        seeded(tmp_path / "cut")
    stop = None
    assert torch.equal(seeded(tmp_path / "cut").weight, whole.weight)


def test_fit_is_the_loop_for_a_plain_loss(tmp_path):
    model = torch.nn.Linear(1, 1)
    fit(
        "t",
        {"m": model},
        lambda step: (model(torch.ones(1, 1)).square().sum(), {}),
        Schedule(2, 1, 0.1),
        tmp_path,
        settings={},
    )
    assert (tmp_path / "checkpoint.pt").exists()
