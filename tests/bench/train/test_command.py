"""The options of `bench train`, which come from the fields of `TrainingJob`."""

import dataclasses
from pathlib import Path

import click
import pytest

from bench.cli.train import train
from bench.train import trainer
from bench.train.job import TrainingJob, help_of_fields
from tests.bench.train.commands import invoke

FIELDS = {field.name: field for field in dataclasses.fields(TrainingJob)}
NEEDED = ["--arch", "a", "--data", "folder:d", "--output", "o"]


def _command(name):
    return train.get_command(click.Context(train), name)


def test_every_field_is_an_option_with_its_default_and_says_what_it_is():
    options = {parameter.name: parameter for parameter in _command("fare").params}
    assert options.keys() == FIELDS.keys() - {"objective"}
    assert help_of_fields().keys() == FIELDS.keys()
    assert all(help_of_fields().values())
    for name, option in options.items():
        assert option.required == (FIELDS[name].default is dataclasses.MISSING)
        if not option.required:
            assert option.default == FIELDS[name].default, name


def test_every_option_reaches_the_job(monkeypatch):
    jobs = []
    monkeypatch.setattr(trainer, "run", lambda job, score: jobs.append(job))
    other = {"weights": "w", "classnames": "c", "eval_images": 3, "eval_data": "e", "eval_every": 4, "score": "none"}
    other |= {
        "data_threads": 2,
        "data_root": "r",
        "results": "s",
        "recipe": "paper",
        "eps": 2.0,
        "steps": 9,
        "batch": 5,
    }
    other |= {"lr": 0.1, "warmup": 1, "weight_decay": 0.2, "attack": "apgd", "inner_steps": 6, "inner_step": 0.5}
    other |= {"clean_weight": 0.3, "ramp": 0.4, "seed": 7, "device": "cpu", "micro_batch": 8, "checkpoint_every": 11}
    words = [word for name, value in other.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    flags = ["--bf16", "--compile", "--checkpoint-activations", "--flaw", "last-iterate", "--flaw", "inert-momentum"]
    flags += ["--log-to", "tensorboard:a, mlflow:b", "--log-to", "wandb:c"]
    done = invoke(["train", "tecoa", *NEEDED, *words, *flags])
    assert done.exit_code == 0, done.output
    expected = other | {"objective": "tecoa", "arch": "a", "data": "folder:d", "output": Path("o")}
    expected |= {name: Path(other[name]) for name in ("classnames", "data_root", "results")}
    expected |= {"bf16": True, "compiled": True, "checkpoint_activations": True}
    expected |= {"log_to": ("tensorboard:a", "mlflow:b", "wandb:c")}
    assert dataclasses.asdict(jobs[0]) == expected | {"flaws": ("last-iterate", "inert-momentum")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fare4"], "a model of the miniature suite: bench train recipe fare4"),
        (["--suite", "mini", "fare4"], "a model of the miniature suite: bench train recipe fare4"),
        (["faer", *NEEDED], "did you mean 'fare'"),
        (["recipe", "fare5"], "no recipe for 'fare5'"),
        (["fare", *NEEDED, "--recipe", "own"], "'own' is not one of 'default', 'paper'"),
    ],
)
def test_what_is_no_command_says_which_there_are(words, message):
    done = invoke(["train", *words])
    assert done.exit_code == 2
    assert message in done.output
