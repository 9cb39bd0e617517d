"""MLflow: a server, a database, or a folder with one."""

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import registry
from bench.sinks.base import Subject

DEFAULT_PLACE = "mlruns"
DEFAULT_EXPERIMENT = "robust-vlm-bench"
IDENTITY = "robust_vlm_bench_identity"  # the tag by which a run that is sent again is found
LONGEST = 6000  # characters of a parameter
AT_ONCE = 100  # parameters of one request
# A server that does not answer must not hold a run up, nor is MLflow's maker told of it; a user may say otherwise.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true"}


class MLflow:
    """Metrics and parameters of an MLflow run per run or training.

    Args:
        place: a tracking URI, or a folder, in which a database is made. Default: ``MLFLOW_TRACKING_URI``, else mlruns.
        experiment: what the runs are gathered under.
    """

    def __init__(self, place: str, experiment: str = DEFAULT_EXPERIMENT) -> None:
        for name, value in {**_PATIENCE, **_QUIET}.items():
            os.environ.setdefault(name, value)
        self._tracking: Any = registry.extra("mlflow.tracking", "mlflow", "--log-to mlflow")
        self._entities: Any = registry.extra("mlflow.entities", "mlflow", "--log-to mlflow")
        self._place = place or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_PLACE
        self._experiment = experiment

    def begin(self, subject: Subject) -> None:
        """Find the MLflow run of an earlier time, or make one."""
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = self._tracking.MlflowClient(tracking_uri=_uri(self._place))
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        known = self._client.search_runs([experiment], f"tags.{IDENTITY} = '{subject.identity}'")
        self._run = known[0].info.run_id if known else self._make(experiment, subject)

    def _make(self, experiment: str, subject: Subject) -> str:
        tags = {IDENTITY: subject.identity, "kind": subject.kind}
        run = str(self._client.create_run(experiment, run_name=subject.name, tags=tags).info.run_id)
        facts = [self._entities.Param(name, str(value)[:LONGEST]) for name, value in subject.settings.items()]
        for first in range(0, len(facts), AT_ONCE):
            self._client.log_batch(run, params=facts[first : first + AT_ONCE])
        return run

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send metrics; MLflow keeps no NaN."""
        now = int(time.time() * 1000)
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._client.log_batch(self._run, [self._entities.Metric(k, v, now, step) for k, v in finite.items()])

    def close(self) -> None:
        """Say that the run has ended."""
        self._client.set_terminated(self._run)


def _uri(place: str) -> str:
    """A tracking URI as it is; a folder as the database in it."""
    if "://" in place or place.partition(":")[0] in ("sqlite", "databricks"):
        return place
    folder = Path(place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"
