"""What sinks are told of a training: every logged row. TensorBoard's events in the run directory are always written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from bench import sinks
from bench.sinks.base import Subject
from bench.sinks.tensorboard import TensorBoard
from bench.train.job import TrainingJob

FOLDER = "tensorboard"
LETTERS = 32  # of a digest


class Observer:
    """Sends rows to the sinks of a job, which are opened by the first row: only the main process has any.

    Args:
        job: the training.
        identity: what makes another training of it.
    """

    def __init__(self, job: TrainingJob, identity: Mapping[str, object]) -> None:
        self._job, self._subject = job, subject_of(job, identity)
        self._followed: list[sinks.Followed] = []

    def __call__(self, row: Mapping[str, float]) -> None:
        """Send a row; figures of an evaluation get a group of their own."""
        if not self._followed:
            own = {FOLDER: TensorBoard(str(self._job.output))}
            self._followed.append(sinks.Followed(replace(self._subject, name=FOLDER), own))
            self._followed.append(sinks.follow(self._subject, self._job.log_to))
        numbers = {key.replace("eval_", "eval/"): value for key, value in row.items() if key != "step"}
        for followed in self._followed:
            followed.log(int(row["step"]), numbers)

    def close(self) -> None:
        """Let the sinks write what they hold."""
        for followed in self._followed:
            followed.close()


def subject_of(job: TrainingJob, identity: Mapping[str, object]) -> Subject:
    """What a training is: its folder's name, a digest that stays when it is resumed, and what was asked for."""
    asked = {name: value for name, value in asdict(job).items() if name != "log_to"}
    plain = {k: v if isinstance(v, bool | int | float | None) else str(v) for k, v in asked.items()}
    whole = json.dumps([str(job.output.resolve()), asdict(job.resolved()), identity], default=str, sort_keys=True)
    return Subject("training", job.output.name, hashlib.sha256(whole.encode()).hexdigest()[:LETTERS], plain)
