"""An attack kind, an engine, a defence, a sink and a task with a metric from 0 to 1, of an installed plugin."""

import json
from pathlib import Path

from attacks.presets import PRESETS, AttackStep, Preset
from bench.config import Request, resolve
from bench.records import load_run
from tests.bench.runs import make_run
from tests.commands import bench, start


def run_corners(output: Path) -> None:
    """In a process that has the plugin: its attack on its engine; prints what is said of each run."""
    from bench.running.engines import execute_all

    step = AttackStep("corners", "corners", 1, "untargeted", "clean", 0.0, options={"tries": 5})
    PRESETS["corners"] = Preset("", (step,))
    options = {"task": "zeroshot", "dataset": "mini-shape", "attack": "corners", "eps": 8, "limit": 4}
    configs = resolve(Request.of(encoder="clip,fare2", output=output, **options))
    runs = [load_run(directory) for directory in execute_all(configs, on="backwards")]
    said = [
        {
            "encoder": run.header.encoder,
            "place": (run.directory / "backwards.txt").read_text(),
            "options": run.header.attack_steps[0]["options"],
            "curves": [len(r.loss_curve) for r in run.records if r.step == "corners"],
            "checks": {check["name"]: check["ok"] for check in run.header.checks},
        }
        for run in runs
    ]
    print(json.dumps(said))


def test_a_kind_with_its_own_curve_and_option_runs_on_an_engine_of_its_own(plugin, tmp_path):
    done = start(run_corners, tmp_path, path=[plugin])
    assert done.wait() == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["encoder"], second["encoder"]) == ("clip", "fare2")
    assert (first["place"], second["place"]) == ("1", "0")
    for run in (first, second):
        assert run["options"] == {"tries": 5}
        assert set(run["curves"]) == {3}, "the best of 1, 2 and 4 corners"
        assert "gradient" not in run["checks"], "nothing is said of gradients that are not used"
        assert run["checks"]["attack_moves_images"]


def test_a_defence_with_an_option(plugin, tmp_path):
    command = ["run", "--encoder", "clip", "--task", "zeroshot", "--dataset", "mini-shape", "--limit", "2", "--quiet"]
    command += ["--attack", "none", "--defence", "paler?share=0.25", "--output", str(tmp_path)]
    done = bench(*command, path=[plugin])
    assert done.poll() == 0, done.stderr
    (path,) = tmp_path.rglob("run.json")
    protocol = json.loads(path.read_text())["protocol"]
    assert protocol["defence"] == "paler?share=0.25"
    assert protocol["defence_options"] == [{"share": 0.25}]


def test_a_task_says_how_high_its_metric_goes(plugin, tmp_path):
    command = ["run", "--encoder", "clip", "--task", "certainty", "--eps", "4", "--output", str(tmp_path), "--json"]
    done = bench(*command, "--quiet", path=[plugin])
    assert done.poll() == 0, done.stderr
    clean, attacked = json.loads(done.stdout)
    assert clean["metric"] == "probability"
    assert 0.5 < clean["value"] < clean["high"] <= 1
    assert 0 <= attacked["low"] <= attacked["value"] < 0.1
    (header,) = tmp_path.rglob("run.json")
    assert json.loads(header.read_text())["ceiling"] == 1


def test_a_sink_with_an_option(plugin, tmp_path):
    make_run(tmp_path / "runs" / "a", {0: [100.0, 0.0], 4: [0.0, 0.0]})
    place = f"lines:{tmp_path / 'kept'}?prefix=>"
    done = bench("push", "runs", str(tmp_path / "runs"), "--log-to", place, path=[plugin])
    assert done.poll() == 0, done.stderr
    assert ">mini/vqa/a 0 score/clean 50.0" in (tmp_path / "kept").read_text().splitlines()
