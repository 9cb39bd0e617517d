"""Sinks by name, what they are told of runs, and that a broken one costs nothing."""

import pytest

import bench
from bench import registry, sinks
from bench.analysis.sent import numbers_of, send, subject_of
from bench.errors import UsageError
from bench.records import load_run
from bench.running import engines
from bench.sinks.base import Subject, without_secrets
from tests.bench.runs import in_memory, make_run
from tests.bench.sinks.recording import Recording
from tests.bench.train.commands import events, invoke

SUBJECT = Subject("run", "mini/vqa/a", "ab12", {"encoder": "fare4"})


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setitem(registry.SINKS, "recording", "tests.bench.sinks.recording:Recording")
    Recording.told = []
    return Recording.told


def test_a_place_and_options_reach_the_sink(told):
    sinks.make_sink("recording:http://host:5000/a?colour=blue")
    assert told == [("made", "http://host:5000/a", "blue")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tensorbord:x", "did you mean 'tensorboard'"),
        ("recording:x?color=blue", "did you mean 'colour'"),
        ("tensorboard:x?colour=blue", "known: none"),
        ("mlflow:http://me:0123456@host", "MLFLOW_TRACKING_PASSWORD"),
        ("mlflow:postgresql://me@host/db", "no user or password"),
    ],
)
def test_a_wrong_specification_is_refused_before_anything_runs(spec, message, monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "execute_all", lambda *_, **__: pytest.fail("it runs"))
    with pytest.raises(UsageError, match=message) as refused:
        bench.run("clip", "zeroshot", log_to=spec, output=tmp_path)
    assert "0123456" not in str(refused.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    with pytest.raises(UsageError, match=r"needs the package mlflow: pip install 'robust-vlm-bench\[mlflow\]'"):
        sinks.make_sink("mlflow:x")


@pytest.mark.parametrize("method", ["begin", "log", "close"])
def test_a_sink_that_fails_is_named_and_left_out_and_the_other_goes_on(method, told, capsys, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "0123456789")
    followed = sinks.follow(SUBJECT, (f"recording:{method}", "recording:ok"))
    followed.log(0, {"a": 1.0})
    followed.log(1, {"a": 2.0})
    followed.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"recording:{method} failed" in said
    assert "ConnectionError" in said
    assert "0123456789" not in said
    assert [what for what, *_ in told].count("log") == {"begin": 2, "log": 3, "close": 4}[method]


def test_secrets_are_left_out_of_texts(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("SHORT_KEY", "none")
    assert without_secrets("hf_abcdefgh at postgresql://me:word@host/db: none") == (
        "[secret] at postgresql://[secret]@host/db: none"
    )


SCORES = {0: [100.0, 100.0, 0.0, 100.0], 4: [100.0, 0.0, 0.0, 0.0]}


def test_a_run_is_told_by_radius_with_interval_and_n():
    told = numbers_of(in_memory(SCORES, checks=[{"name": "gradient", "ok": False, "detail": ""}]))
    assert (told["score/clean"], told["score/4"], told["n/4"]) == (75.0, 25.0, 4.0)
    assert told["low/4"] < 25 < told["high/4"]
    assert (told["partial"], told["failed_checks"]) == (0.0, 1.0)
    assert numbers_of(in_memory(SCORES, limit=4))["partial"] == 1.0


def test_the_same_run_sent_again_is_the_same_subject_and_another_is_another():
    run = in_memory(SCORES)
    again = in_memory(SCORES, status="failed", ended="later", config={"log_to": ["x"]})
    other = in_memory(SCORES, seed=1)
    assert subject_of(run) == subject_of(again)
    assert subject_of(run).identity != subject_of(other).identity
    assert all("/home" not in str(value) for value in subject_of(run).settings.values())


def test_finished_runs_are_sent(tmp_path, told):
    send([make_run(tmp_path / "run", SCORES)], ["recording:x"])
    assert [what for what, *_ in told] == ["made", "begin", "log", "close"]


@pytest.mark.parametrize("names", [{"suite": "../../out"}, {"suite": "/tmp/out"}, {"task": "../../out"}, {"suite": ""}])
def test_no_run_chooses_a_folder_outside_its_sink(tmp_path, names):
    """Suite and task of a header are part of the name, of which TensorBoard makes folders."""
    run = make_run(tmp_path / "results" / "run", SCORES, **names)
    done = invoke(["push", "runs", str(run.directory), "--log-to", f"tensorboard:{tmp_path / 'a' / 'logs'}"])
    assert done.exit_code == 2
    assert "run.json: suite and task" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_tensorboard_writes_through_no_link(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "logs" / "mini").symlink_to(tmp_path / "precious")
    send([make_run(tmp_path / "run", SCORES)], [f"tensorboard:{tmp_path / 'logs'}"])
    assert "is a link" in capsys.readouterr().err
    assert list((tmp_path / "precious").iterdir()) == []


def test_the_settings_are_a_table_whatever_they_are_called(tmp_path):
    evil = "w |\n<script>x</script>"
    send([make_run(tmp_path / "run", SCORES, weights={evil: evil})], [f"tensorboard:{tmp_path / 'logs'}"])
    (file,) = (path for path in (tmp_path / "logs").rglob("*") if path.is_file())
    (text,) = (v.tensor.string_val[0] for e in events(file) for v in e.summary.value if v.tag.startswith("settings"))
    assert b"<script>" not in text
    assert all(line.count(b"|") - line.count(b"\\|") == 3 for line in text.splitlines())


def run_words(output, *more):
    words = ["run", "--encoder", "clip", "--task", "zeroshot", "--dataset", "mini-shape", "--attack", "none"]
    return [*words, "--limit", "2", "--on", "inline", "--quiet", "--output", str(output), *more]


def test_a_command_sends_its_scores_and_its_header_says_where_to(tmp_path, told):
    done = invoke(run_words(tmp_path, "--log-to", "recording:begin,recording:ok"))
    assert done.exit_code in (0, 1), done.output
    assert "recording:begin failed" in done.output
    (directory,) = {path.parent for path in tmp_path.rglob("run.json")}
    run = load_run(directory)
    assert run.header.config["log_to"] == ["recording:begin", "recording:ok"]
    assert ("log", 0, numbers_of(run)) in told


def test_runs_are_sent_later_by_a_command_of_its_own(tmp_path, told):
    run = make_run(tmp_path / "run", SCORES)
    done = invoke(["push", "runs", str(tmp_path), "--log-to", "recording:x"])
    assert done.exit_code == 0, done.output
    assert ("log", 0, numbers_of(run)) in told


def test_what_ended_is_sent_where_other_runs_fail(tmp_path, told, monkeypatch):
    """The second of two runs cannot be carried out."""
    done = invoke(run_words(tmp_path, "--log-to", "recording:x", "--encoder", f"clip,{tmp_path / 'no.safetensors'}"))
    assert done.exit_code == 2
    assert [what for what, *_ in told] == ["made", "made", "begin", "log", "close"]


def test_tensorboard_keeps_scalars_settings_and_where_they_begin_anew(tmp_path):
    for _ in range(2):
        followed = sinks.follow(SUBJECT, [f"tensorboard:{tmp_path}"])
        followed.log(0, {"score/4": 25.0})
        followed.close()
    (first, second) = sorted((tmp_path / "mini/vqa/a").iterdir())
    values = {value.tag: value for event in events(first) for value in event.summary.value}
    assert values["score/4"].simple_value == 25.0
    assert b"fare4" in values["settings/text_summary"].tensor.string_val[0]
    assert any(event.HasField("session_log") for event in events(second))
