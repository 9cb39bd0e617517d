"""Numbers as files: lossless tables, and results that read like those of lm-evaluation-harness."""

import csv
import json

import pandas as pd
import pytest

from bench.analysis.facts import Facts
from bench.api import Result
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.records import RecordsError
from bench.tables.export import EXPORTED, export
from bench.tables.rows import COLUMNS
from tests.bench.runs import in_memory, make_run
from tests.bench.train.commands import invoke

THIRDS = {0: [100.0, 100.0, 70.0], 4: [100.0, 0.1, 1 / 3]}


def runs(**changes):
    shape = {"task": "zeroshot", "model": None, "metric": "accuracy (%)", "answers": "class", "attack": "apgd"}
    sets = [in_memory(THIRDS, name=f"r/{name}", dataset=name, **shape) for name in ("mini-shape", "mini-count")]
    doubted = [{"name": "gradient", "ok": False, "detail": ""}]
    vqa = in_memory(THIRDS, name="r/vqa", metric="VQA accuracy (%)", checks=doubted, **changes)
    return [*sets, vqa]


@pytest.mark.parametrize(("name", "read"), [("out.csv", pd.read_csv), ("out.parquet", pd.read_parquet)])
def test_every_digit_of_the_table_comes_back(tmp_path, name, read):
    (path,) = export(runs(), SUITE_FACTS, tmp_path / "new" / name)
    found, expected = read(path), Result(tuple(runs())).table()
    assert tuple(found.columns) == EXPORTED
    found = found[list(COLUMNS)].fillna({"checks": ""})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)
    assert "average" in set(found.dataset)


def test_what_tells_runs_apart_is_beside(tmp_path):
    (path,) = export(runs(protocol={"name": "paper"}, seed=3), SUITE_FACTS, tmp_path / "x.csv")
    last = list(csv.DictReader(path.open()))[-3]
    assert (last["task"], last["protocol"], last["seed"], last["runs"]) == ("vqa", "paper", "3", "vqa")


def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path):
    (path,) = export([in_memory(THIRDS, encoder="=1+1")], SUITE_FACTS, tmp_path / "x.csv")
    assert {row["encoder"] for row in csv.DictReader(path.open())} == {"'=1+1"}


def printed(results):
    """Rows as the harness prints them: task, version, shots, metric, value, standard error."""
    rows = []
    for task, numbers in results["results"].items():
        for name, value in numbers.items():
            metric, comma, _ = name.partition(",")
            if comma and not metric.endswith("_stderr"):
                error = numbers[f"{metric}_stderr,none"]
                rows.append((task, results["versions"][task], results["n-shot"][task], metric, value, error))
    return rows


def test_results_read_like_those_of_the_harness(tmp_path):
    of_encoder, of_model = export(runs(), SUITE_FACTS, tmp_path / "out", "lm-eval")
    assert of_encoder.parent.name == "fare4"
    assert of_model.parent.name == "fare4+mini-llava"
    results = json.loads(of_model.read_text())
    assert of_model.name.startswith("results_2024-01-01T00-00-00")
    clean, attacked = printed(results)
    assert clean[:5] == ("vqa_mini-vqa", 1, 0, "vqa_accuracy", 90.0)
    assert attacked[:4] == ("vqa_mini-vqa_ensemble_linf_4", 1, 0, "vqa_accuracy")
    assert attacked[4] == pytest.approx(100.1 / 3 + 1 / 9)
    config = results["configs"]["vqa_mini-vqa_ensemble_linf_4"]["metadata"]
    assert attacked[5] == pytest.approx((config["high"] - config["low"]) / 3.92, rel=1e-3)
    assert (config["partial"], config["checks"], config["radius"]) == (False, ["gradient"], 4.0)
    assert results["results"]["vqa_mini-vqa"]["alias"] == "vqa_mini-vqa!"
    assert results["n-samples"]["vqa_mini-vqa"] == {"original": 3, "effective": 3}
    assert results["higher_is_better"]["vqa_mini-vqa"] == {"vqa_accuracy": True}
    assert results["git_hash"] == "0123abc"


def test_an_average_is_a_group_of_its_datasets(tmp_path):
    path, _ = export(runs(), SUITE_FACTS, tmp_path / "out", "lm-eval")
    results = json.loads(path.read_text())
    assert results["group_subtasks"]["zeroshot_average"] == ["zeroshot_mini-shape", "zeroshot_mini-count"]
    assert set(results["groups"]) == {"zeroshot_average", "zeroshot_average_apgd_linf_4"}
    assert "zeroshot_average" not in results["n-samples"]


def test_a_success_rate_of_attacks_is_better_when_lower(tmp_path):
    stealth = in_memory({0: [0.0, 0.0], 4: [100.0, 0.0]}, worst="max", metric="attack success rate (%)")
    (path,) = export([stealth], Facts(lambda header: False, lambda header: None), tmp_path, "lm-eval")
    told = json.loads(path.read_text())["higher_is_better"]
    assert told["vqa_mini-vqa_ensemble_linf_4"] == {"attack_success_rate": False}


def test_two_numbers_of_one_task_are_refused_and_equal_clean_ones_are_not(tmp_path):
    first, other = in_memory(THIRDS, name="a"), in_memory(THIRDS, name="b", attack="pgd")
    export([first, other], SUITE_FACTS, tmp_path, "lm-eval")
    with pytest.raises(UsageError, match=r"has two numbers, choose one with --where.*a and c"):
        export([first, in_memory({0: [0.0, 0, 0]}, name="c")], SUITE_FACTS, tmp_path, "lm-eval")


def test_the_same_runs_give_the_same_files(tmp_path):
    for name in ("a.csv", "b.csv"):
        export(runs(), SUITE_FACTS, tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    (one, _), (again, _) = (export(runs(), SUITE_FACTS, tmp_path / "out", "lm-eval") for _ in range(2))
    assert one == again


@pytest.mark.parametrize("encoder", ["..", ".", "../../out", "/tmp/out", "a\0b", "x\ny", "x" * 300, " "])
def test_no_encoder_chooses_another_folder(tmp_path, encoder):
    run = in_memory(THIRDS, encoder=encoder, task="zeroshot", model=None)
    (path,) = export([run], SUITE_FACTS, tmp_path / "in" / "out", "lm-eval")
    assert path.parent.parent == tmp_path / "in" / "out"
    assert path.resolve() == path
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
    assert json.loads(path.read_text())["model_name"] == encoder


@pytest.mark.parametrize(
    "changes", [{"ended": "2024-01-01/../../../../out"}, {"started": "/../../out"}, {"ended": "now"}]
)
def test_a_time_that_is_none_is_named_and_makes_no_folder(tmp_path, changes):
    with pytest.raises(UsageError, match=r"run\.json says .* for a time"):
        export([in_memory(THIRDS, **changes)], SUITE_FACTS, tmp_path / "in" / "out", "lm-eval")
    assert not (tmp_path / "in" / "out").exists()


def test_any_character_may_stand_between_a_date_and_a_time(tmp_path):
    (path,) = export([in_memory(THIRDS, ended="2024-01-02/03:04:05")], SUITE_FACTS, tmp_path, "lm-eval")
    assert path.name == "results_2024-01-02T03-04-05.json"


def test_two_models_whose_names_would_be_one_folder_have_two(tmp_path):
    both = [in_memory(THIRDS, name=name, encoder=name, model=None) for name in ("a/b", "a__b")]
    written = export(both, SUITE_FACTS, tmp_path, "lm-eval")
    assert len({path.parent for path in written}) == 2
    assert {json.loads(path.read_text())["model_name"] for path in written} == {"a/b", "a__b"}


@pytest.mark.parametrize("place", ["fare4+mini-llava", "fare4+mini-llava/results_2024-01-01T00-00-00+00-00.json"])
def test_no_result_is_written_through_a_link(tmp_path, place):
    (path,) = export([in_memory(THIRDS)], SUITE_FACTS, tmp_path / "out", "lm-eval")
    link, precious = tmp_path / "out" / place, tmp_path / "precious"
    assert path.is_relative_to(link)
    link.rename(precious)
    before = {one: one.read_bytes() for one in [precious, *precious.rglob("*")] if one.is_file()}
    link.symlink_to(precious)
    with pytest.raises(RecordsError, match="is a link"):
        export([in_memory(THIRDS, seed=5)], SUITE_FACTS, tmp_path / "out", "lm-eval")
    assert before == {one: one.read_bytes() for one in before}


@pytest.mark.parametrize(("said", "shots"), [("4", 4), ("x", 0), ("9" * 5000, 0), ("-1", 0)])
def test_shots_are_a_number(tmp_path, said, shots):
    run = in_memory(THIRDS, protocol={"victim": {"shots": said}})
    (path,) = export([run], SUITE_FACTS, tmp_path, "lm-eval")
    assert set(json.loads(path.read_text())["n-shot"].values()) == {shots}


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match="does not say its format"):
        export(runs(), SUITE_FACTS, tmp_path / "x.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordsError, match="cannot create"):
        export(runs(), SUITE_FACTS, tmp_path / "file" / "x.csv")
    for style in ("csv", "lm-eval"):
        with pytest.raises(UsageError, match="no run has a score"):
            export([], SUITE_FACTS, tmp_path / "x", style)


def test_the_command_chooses_and_names_its_files(tmp_path):
    for name in ("fare4", "clip"):
        make_run(tmp_path / "runs" / name, THIRDS, encoder=name)
    done = invoke(["export", str(tmp_path / "runs"), "-o", str(tmp_path / "x.csv"), "--encoder", "clip"])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(tmp_path / "x.csv")
    assert {row["encoder"] for row in csv.DictReader((tmp_path / "x.csv").open())} == {"clip"}
