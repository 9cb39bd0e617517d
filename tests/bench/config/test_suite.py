"""A user's own suite file: what it may say, what it builds on, and what its errors name."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest

import bench
from attacks.presets import AttackStep
from bench.config import Request, Suite, TaskPlan, load_suite, preset, resolve, resolve_all, suite_names
from bench.config.run_config import RunConfig
from bench.errors import UsageError
from bench.mini.export import export_mini

OWN = """
base = "mini"
about = "two questions more"
eps = [8, 1]

[tasks.zeroshot]
datasets = ["mini-shape", "shapes"]
samples = 6
attack = "quick"

[datasets.shapes]
format = "webdataset"
folder = "wds_mini-shape"
samples = 4

[attacks.quick]
description = "two steps"
steps = [
    {name = "first", kind = "pgd", steps = 2, goal = "untargeted", start = "random", first_step = 0.5},
    {name = "second", kind = "apgd", steps = 3, goal = "best", start = "best", first_step = 2, precision = "float32"},
]

[[runs]]
encoder = "clip, fare4"
task = "zeroshot"
dataset = "shapes"
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return str(path)


def test_a_file_of_ones_own_builds_on_a_suite(own, tmp_path):
    suite, mini = load_suite(own), load_suite("mini")
    assert (suite.name, suite.eps, suite.seed, suite.encoders, suite.folder) == ("own", (1.0, 8.0), 0, "mini", tmp_path)
    assert suite.tasks["zeroshot"] == TaskPlan(("mini-shape", "shapes"), 6, "quick")
    assert suite.tasks["vqa"] == mini.tasks["vqa"]
    assert suite.datasets.keys() == {*mini.datasets, "shapes"}
    assert suite.attacks["quick"].steps == (
        AttackStep("first", "pgd", 2, "untargeted", "random", 0.5),
        AttackStep("second", "apgd", 3, "best", "best", 2.0, precision="float32"),
    )


def test_its_runs_are_resolved_and_lie_under_its_name(own):
    configs = resolve_all(Request.of(suite=own))
    assert [(c.encoder, c.dataset, c.samples, c.attack) for c in configs] == [
        ("clip", "shapes", 4, "quick"), ("fare4", "shapes", 4, "quick"),
    ]  # fmt: skip
    assert str(configs[0].directory) == "results/runs/own/zeroshot/clip_shapes_quick_linf_1+8_seed0"
    assert [step.name for step in configs[0].steps] == ["first", "second"]
    (config,) = resolve(Request.of(suite=own, encoder="clip", task="vqa", attack="quick"))
    assert config.samples == 200


def test_its_datasets_lie_beside_it_and_its_runs_are_carried_out(own, tmp_path):
    export_mini(tmp_path / "data", size=12, progress=False)
    (tmp_path / "data" / "wds_mini-shape").rename(tmp_path / "wds_mini-shape")
    result = bench.run("clip", "zeroshot", suite=own, output=tmp_path / "runs", jobs=1, progress=False)
    headers = {run.header.dataset: run.header for run in result.runs}
    assert {name: header.n_samples for name, header in headers.items()} == {"mini-shape": 6, "shapes": 4}
    assert {header.suite for header in headers.values()} == {"own"}
    assert [step["name"] for step in headers["shapes"].attack_steps] == ["first", "second"]
    assert {r.step for run in result.runs for r in run.records} >= {"clean", "first"}


def test_a_suite_may_build_on_another_file(own, tmp_path):
    (tmp_path / "more.toml").write_text('base = "own.toml"\nname = "still-more"\nseed = 3\n')
    suite = load_suite(str(tmp_path / "more.toml"))
    assert suite == replace(load_suite(own), name="still-more", seed=3)


def test_a_suite_is_an_option_of_the_command_line(own):
    words = [sys.executable, "-m", "bench", "run", "--suite", own, "--encoder", "clip", "--task", "zeroshot"]
    done = subprocess.run([*words, "--dataset", "shapess"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'shapes'" in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('base = "mini"', 'base = "mimi"', "base: unknown suite 'mimi'; did you mean 'mini'"),
        ('base = "mini"', "base = 3", "base is the name of a suite or a file, not 3"),
        ('base = "mini"', "", "about|encoders"),
        ('base = "mini"', 'base = "own.toml"', "leads back to itself"),
        ("about =", "abuot =", "unknown key 'abuot'; did you mean 'about'"),
        ("about =", "name = 'mini'\nabout =", "'mini' is the name of a suite that ships"),
        ("about =", "name = '../x'\nabout =", "name: a name holds letters, digits.* not '../x'"),
        ("about =", "folder = 'x'\nabout =", "unknown key 'folder'"),
        ("about =", "norm = 'l1'\nabout =", "unknown norm 'l1'"),
        ("about =", "seed = 'x'\nabout =", "seed: expected `int`, got `str`"),
        ("about =", "seed = -1\nabout =", "seed must be a number from 0"),
        ("eps = [8, 1]", "eps = [0.01]", "eps: eps is counted in 1/255"),
        ("eps = [8, 1]", "eps = 3", "eps: expected `array`, got `int`"),
        ("eps = [8, 1]", "norm = 'l2'", "norm is another than that of the base; give eps"),
        ("[tasks.zeroshot]", "[tasks.zershot]", "unknown task 'zershot'; did you mean 'zeroshot'"),
        ("samples = 6", "samples = '6'", r"\[tasks.zeroshot\]: samples: expected `int`, got `str`"),
        ("samples = 6", "samples = 0", r"\[tasks.zeroshot\]: samples must be at least 1"),
        ('attack = "quick"', 'attack = "quik"', r"\[tasks.zeroshot\]: unknown attack 'quik'; did you mean 'quick'"),
        ("about =", "encoders = 'minni'\nabout =", "encoders: the catalogue has no encoders called 'minni'"),
        ('folder = "wds_mini-shape"', 'foldr = "x"', r"\[datasets.shapes\].*'foldr'"),
        ("[datasets.shapes]", "[datasets.'../x']\nformat = 'vqa'\n[datasets.shapes]", r"a name holds letters"),
        ("samples = 6", "sampels = 6", r"\[tasks.zeroshot\]: unknown key 'sampels'; did you mean 'samples'"),
        ('"shapes"]', '"shops"]', r"\[tasks.zeroshot\]: unknown dataset 'shops'; did you mean 'shapes'"),
        ('format = "webdataset"', "", r"\[datasets.shapes\]: say format"),
        ("samples = 4", "samples = 4.5", r"\[datasets.shapes\].* samples .*a number from 1"),
        ("[attacks.quick]", "[attacks.apgd]", r"\[attacks.apgd\]: 'apgd' is the name of an attack that ships"),
        ('goal = "untargeted", ', "", r"\[attacks.quick\]: steps.* missing required field `goal`"),
        ('kind = "pgd"', 'knid = "pgd"', r"\[attacks.quick\], steps\[0\]: unknown key 'knid'; did you mean 'kind'"),
        ('"second"', '"first"', r"\[attacks.quick\]: two steps have the same name"),
        ("steps = 2", "steps = 0", r"step 'first': steps must be at least 1"),
        ('task = "zeroshot"\ndataset', "dataset", r"runs\[0\]: has encoder, task and perhaps"),
        ('encoder = "clip, fare4"', "encoder = 4", r"runs\[0\]: encoder must be text"),
        ("[[runs]]", "[runs]", "must be a list of tables"),
        ("[datasets.shapes]", "[datasets]\nshapes = 3\n[other]", r"\[datasets.shapes\] must be a table|unknown key"),
        ("[[runs]]", "[[runs", "is not TOML"),
    ],
)  # fmt: skip
def test_an_error_names_file_and_key(tmp_path, before, after, message):
    assert before in OWN
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(before, after, 1))
    with pytest.raises(UsageError, match=message) as caught:
        load_suite(str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"no such file: .*gone\.toml; shipped suites: mini, mini-full, mini-openflamingo, mini-transfer, paper",
    ):
        load_suite(str(tmp_path / "gone.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match=r"folder\.toml"):
        load_suite(str(tmp_path / "folder.toml"))


def test_an_attack_of_a_suite_is_known_within_it_only(own):
    assert preset("quick", load_suite(own)).description == "two steps"
    with pytest.raises(UsageError, match="unknown attack 'quick'"):
        preset("quick")


def test_a_file_that_changed_is_read_again(own, tmp_path):
    assert load_suite(own).seed == 0
    (tmp_path / "own.toml").write_text(OWN.replace("about =", "seed = 9\nabout ="))
    assert load_suite(own).seed == 9


def test_every_shipped_suite_says_nothing_that_a_users_file_could_not(tmp_path):
    for name in suite_names():
        (tmp_path / "copy.toml").write_text(f'base = "{name}"\n')
        copy = load_suite(str(tmp_path / "copy.toml"))
        assert replace(copy, name=name, folder=None) == load_suite(name)
    assert {f.name for f in fields(Suite)} & {f.name for f in fields(RunConfig)} >= {"norm", "eps", "seed"}
