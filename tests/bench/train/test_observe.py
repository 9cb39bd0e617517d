"""What sinks are told of a training."""

from dataclasses import replace

import pytest

from bench import registry
from bench.train.job import TrainingJob
from bench.train.observe import Observer, subject_of
from tests.bench.sinks.recording import Recording
from tests.bench.train.commands import events, invoke, train_command


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setitem(registry.SINKS, "recording", "tests.bench.sinks.recording:Recording")
    Recording.told = []
    return Recording.told


def test_a_training_sends_its_rows_to_the_sinks_too(images, tmp_path, told):
    """A sink that fails half-way changes nothing of the training, and TensorBoard's folder is there as ever."""
    output = tmp_path / "out"
    done = invoke(train_command(images, output, "--log-to", "recording:log,recording:ok", "--score", "none"))
    assert done.exit_code == 0, done.output
    assert "recording:log failed" in done.output
    begun = [subject for what, *rest in told if what == "begin" for subject in rest]
    assert {(subject.kind, subject.name) for subject in begun} == {("training", "out")}
    assert begun[0].settings["eps"] == 4.0
    rows = {step: numbers for what, *rest in told if what == "log" for step, numbers in [rest]}
    assert "eval/cosine_clean" in rows[7]
    (path,) = (output / "tensorboard").iterdir()
    assert any(event.summary.value for event in events(path))


def test_a_training_that_goes_on_is_the_same_subject(tmp_path):
    job = TrainingJob(objective="fare", arch="a", data="folder:d", output=tmp_path)
    one, again = subject_of(job, {"a": 1}), subject_of(replace(job, checkpoint_every=7, device="cpu"), {"a": 1})
    assert one.identity == again.identity
    assert one.identity != subject_of(replace(job, seed=1), {"a": 1}).identity


def test_an_observer_that_saw_nothing_opens_nothing(tmp_path):
    Observer(TrainingJob(objective="fare", arch="a", data="folder:d", output=tmp_path / "o"), {}).close()
    assert not (tmp_path / "o").exists()
