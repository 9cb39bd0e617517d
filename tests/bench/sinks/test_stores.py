"""Real TensorBoard, MLflow and Weights & Biases on this machine's disk, read back by their own readers."""

import pytest

from bench import sinks
from bench.sinks.base import Subject

pytestmark = pytest.mark.sinks
SUBJECT = Subject("training", "fare4", "0123abcd", {"encoder": "fare4", "seed": 0, "limit": None})
LOSSES = [3.0, 2.0, 1.0]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def send_twice(spec, capsys):
    """A training that is interrupted after two updates and takes the second again."""
    for first, losses in ((0, LOSSES[:2]), (1, LOSSES[1:])):
        followed = sinks.follow(SUBJECT, [spec])
        for step, loss in enumerate(losses, first):
            followed.log(step, {"loss": loss, "eval/cosine": float("nan")})
        followed.close()
    assert "failed" not in capsys.readouterr().err


def test_tensorboard_shows_each_step_once(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    send_twice("tensorboard:logs", capsys)
    shown = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert list(shown.Runs()) == ["fare4"]
    assert [(event.step, event.value) for event in shown.Scalars("fare4", "loss")] == list(enumerate(LOSSES))


def test_mlflow_has_one_run_with_parameters_and_curve(tmp_path, capsys):
    from mlflow.tracking import MlflowClient

    send_twice("mlflow:store?experiment=robust", capsys)
    client = MlflowClient(f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("robust")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "fare4"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"encoder": "fare4", "seed": "0", "limit": "None"}
    curve = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
    assert curve == dict(enumerate(LOSSES))
    assert "eval/cosine" not in run.data.metrics


def test_mlflow_that_does_not_answer_costs_a_warning(capsys):
    followed = sinks.follow(SUBJECT, ["mlflow:http://127.0.0.1:9"])
    followed.log(0, {"loss": 1.0})
    followed.close()
    assert "mlflow:http://127.0.0.1:9 failed" in capsys.readouterr().err


def records_of(path):
    """What W&B wrote: after 7 bytes, blocks of 32 KiB with records of checksum, length, kind and data."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position = path.read_bytes(), 7
    assert len(content) < 1 << 15
    while position < len(content):
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        assert content[position + 6] == 1, "a whole record"
        yield Record.FromString(content[position + 7 : position + 7 + length])
        position += 7 + length


def test_wandb_keeps_an_offline_run(tmp_path, capsys):
    send_twice("wandb:team/robust?mode=offline&dir=store", capsys)
    first, second = sorted((tmp_path / "store").rglob("*.wandb"))
    records = list(records_of(first))
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.entity, run.project, run.run_id, run.display_name) == ("team", "robust", "0123abcd", "fare4")
    assert {"encoder", "seed", "limit"} <= {item.key for item in run.config.update}
    rows = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in [*records, *records_of(second)]
        if record.HasField("history")
    ]
    assert [(int(row["update"]), float(row["loss"])) for row in rows] == [(0, 3), (1, 2), (1, 2), (2, 1)]
    assert not list((tmp_path / "store").rglob("requirements.txt"))


def test_wandb_without_a_key_is_refused_at_once():
    with pytest.raises(ValueError, match="mode=offline"):
        sinks.make_sink("wandb:robust")
