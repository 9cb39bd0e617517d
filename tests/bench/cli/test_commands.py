"""The command line, run as a user runs it."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner

from attacks.presets import PRESETS
from bench.cli import main
from bench.config import load_suite
from bench.records import read_records
from tests.commands import bench


def _bench(*words):
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("words", [["--help"], ["list", "encoders"], ["list", "attacks"], ["table", "--help"],
                                   ["check", "--help"], ["run", "--help"]])  # fmt: skip
def test_showing_commands_never_import_torch(words):
    code = (
        "import sys\nfrom bench.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["encoders", "tasks", "attacks", "suites", "datasets"])
def test_lists_are_readable_by_machines(kind):
    rows = json.loads(_bench("list", kind, "--json").stdout)
    assert all(row["name"] for row in rows)
    assert rows[0]["name"] in _bench("list", kind).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--encoder", "fair", "--task", "vqa"], "did you mean 'fare'"),
        (["run", "--encoder", "fare", "--task", "vqs"], "did you mean 'vqa'"),
        (["run", "--encoder", "fare", "--task", "vqa", "--eps", "0.015"], "did you mean 3.8"),
        (["run", "--encoder", "fare", "--task", "vqa", "--attack", "apgdd"], "did you mean 'apgd'"),
        (["run", "--encoder", "fare", "--task", "vqa", "--attack", "autoattack"], "does not fit task 'vqa'"),
        (["run", "--encoder", "fare", "--task", "zeroshot", "--attack", "ensemble"], "does not fit task 'zeroshot'"),
        (["run", "--encoder", "fare", "--task", "vqa", "--batch-size", "many"], "'auto' or a number"),
        (["run", "--encoder", "fare", "--task", "vqa", "--device", "warp9"], "try --device cpu"),
        (["run", "--encoder", "fare", "--task", "vqa", "--device", "meta"], "try --device cpu"),
        (["run", "--encoder", "no/such.pt", "--task", "vqa"], "no such checkpoint"),
        (["run", "--encoder", "fare", "--task", "vqa", "--data-root", "/no/such/root"], "/no/such/root"),
        (["run", "--encoder", "fare", "--task", "vqa", "--frobnicate"], "No such option"),
        (["run", "--encoder", "fare"], "give --task, or --all"),
        (["run", "--encoder", "fare", "--task", "vqa", "--eps", ""], "--eps takes radii, such as 2,4"),
        (["run", "--encoder", "fare", "--task", "vqa", "--eps", " , "], "--eps takes radii, such as 2,4"),
        (["run", "--encoder", "fare", "--task", "vqa", "--eps", "1_0"], "eps '1_0' is not a number"),
        (["run", "--encoder", "fare", "--task", "vqa", "--eps", "\uff14"], "is not a number"),
        (["run", "--encoder", "fare", "--task", "vqa", "--seed", str(2**70)], "--seed must be below 2^63"),
        (["run", "--encoder", "fare", "--task", "zeroshot", "--vlm", "mini"], "--vlm: task zeroshot asks no vision"),
        (["run", "--encoder", "fare", "--task", "zeroshot", "--shots", "4"], "--shots: task zeroshot asks no vision"),
        (
            ["run", "--encoder", "fare", "--task", "zeroshot", "--tower", "native"],
            "--tower: task zeroshot asks no vision",
        ),
        (["run", "--encoder", "fare", "--task", "vqa", "--surrogate", "clip", "--attack", "none"], "makes no images"),
        (["table", "--all", "--write", "x.md", "--format", "csv"], "leave --format out"),
        (["run", "--encoder", "fare", "--task", "vqa", "--image-size", "0"], "--image-size must be at least 1"),
        (["run", "--encoder", "x" * 5000, "--task", "vqa"], "File name too long"),
        (["run", "--encoder", "/proc/self/mem", "--task", "vqa"], "cannot read /proc/self/mem"),
        (["table", "x/" * 3000], "File name too long"),
        (["board", "build", "x/" * 3000, "-o", "/tmp/never"], "File name too long"),
        (["run", "--all", "--suite", "mini", "--eps", "4"], "leave out --eps"),
        (["train", "recipe", "fare5"], "no recipe for 'fare5'"),
        (["table", "/no/such/runs"], "/no/such/runs"),
        (["list", "encoders", "--suite", "mimi"], "did you mean 'mini'"),
    ],
)
def test_a_mistake_gets_one_line_that_helps_and_exit_code_2(words, message, tmp_path):
    extra = ["--output", str(tmp_path), "--jobs", "1", "--quiet"] if words[0] == "run" else []
    result = _bench(*words, *extra)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    result = _bench("run", "--encoder", "clip", "--task", "zeroshot", "--limit", "1", "--attack", "none", "--jobs", "1",
                    "--quiet", "--output", str(tmp_path / "taken"))  # fmt: skip
    assert result.exit_code == 2
    assert str(tmp_path / "taken") in result.output


def test_exported_files_give_the_very_numbers_of_the_embedded_run(tmp_path):
    exported = _bench("data", "export", "mini", str(tmp_path / "data"), "--size", "12")
    assert exported.exit_code == 0, exported.output
    common = ["run", "--encoder", "fare", "--task", "all", "--limit", "3", "--eps", "4", "--attack", "pgd", "--json",
              "--quiet", "--jobs", "1"]  # fmt: skip
    tasks = ("--task", "zeroshot,captioning,vqa,pope,scienceqa")
    embedded = _bench(*common, *tasks, "--output", str(tmp_path / "a"))
    files = _bench(*common, *tasks, "--output", str(tmp_path / "b"), "--data-root", str(tmp_path / "data"))
    assert embedded.exit_code == files.exit_code == 0, files.output

    def numbers(result):
        return [{k: v for k, v in row.items() if k != "run_dir"} for row in json.loads(result.stdout)]

    assert numbers(embedded) == numbers(files)


def test_a_partial_run_carries_its_banner(tmp_path):
    result = _bench("run", "--encoder", "clip", "--task", "zeroshot", "--limit", "2", "--attack", "none", "--quiet",
                    "--jobs", "1", "--output", str(tmp_path))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Partial results" in result.stdout
    assert str(tmp_path) in result.stdout


def test_attacks_are_listed_with_their_steps():
    shown = CliRunner().invoke(main, ["list", "attacks"]).stdout
    assert "apgd-t-1..9 (apgd 100), apgd-ce (apgd 100), fab-t (fab-t 100), square (square 5000)" in shown
    rows = {
        row["name"]: row["steps"] for row in json.loads(CliRunner().invoke(main, ["list", "attacks", "--json"]).stdout)
    }
    assert [step["goal"] for step in rows["ensemble-vqa"]][-3:] == ["best", "target:maybe", "target:Word"]
    assert rows["stealth"] == [asdict(step) for step in PRESETS["stealth"].steps]


def test_all_carries_out_what_the_suite_lists(tmp_path, monkeypatch):
    asked = {"task": "vqa", "attack": "pgd"}
    rows = ({"encoder": "clip,fare4", **asked}, {"encoder": "fare4", **asked, "surrogate": "clip"})
    monkeypatch.setattr("bench.config.run_config.load_suite", lambda name: replace(load_suite(name), runs=rows))
    words = ["run", "--all", "--limit", "1", "--jobs", "1", "--quiet", "--output", str(tmp_path)]
    first = _bench(*words)
    assert first.exit_code == 0, first.output
    runs = [path.name for path in (tmp_path / "mini" / "vqa").iterdir()]
    assert {name.split("_linf")[0] for name in runs} == {
        "clip_mini-vqa_pgd", "fare4_mini-vqa_pgd", "fare4_mini-vqa_pgd-from-clip"
    }  # fmt: skip
    written = {path: path.read_bytes() for path in tmp_path.rglob("records.jsonl")}
    assert _bench(*words).stdout == first.stdout  # and nothing is done again
    assert {path: path.read_bytes() for path in tmp_path.rglob("records.jsonl")} == written


# ---- A third-party package -------------------------------------------------------------------------------


def test_a_plugin_is_listed_and_run(plugin, tmp_path):
    def said(*words):
        ended = bench(*words, path=[plugin])
        assert ended.poll() == 0, ended.stderr
        return ended.stdout

    for kind, name in (("encoders", "blurred"), ("tasks", "warmth"), ("attacks", "two-steps")):
        assert name in [row["name"] for row in json.loads(said("list", kind, "--json"))]
    rows = json.loads(said("run", "--encoder", "blurred", "--task", "warmth", "--json", "--quiet", "--output",
                           str(tmp_path), "--jobs", "1"))  # fmt: skip
    assert {(r["encoder"], r["task"], r["attack"], r["n"]) for r in rows} == {("blurred", "warmth", "two-steps", 12)}
    assert rows[0]["value"] >= rows[-1]["value"]
    assert "guess" in {record.step for record in read_records(rows[0]["run_dir"])}, "a kind of attack of its own"
