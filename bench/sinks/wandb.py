"""Weights & Biases, online or offline."""

import os
from collections.abc import Mapping
from typing import Any

from bench import registry
from bench.errors import UsageError
from bench.sinks.base import Subject

DEFAULT_PROJECT = "robust-vlm-bench"
MODES = ("online", "offline")


class WandB:
    """A W&B run per run or training; the key is the one that W&B itself finds.

    Args:
        place: PROJECT, or ENTITY/PROJECT.
        mode: online or offline, for `wandb sync` later. Default: ``WANDB_MODE``, else online.
        dir: where offline runs lie. Default: ``WANDB_DIR``, else ./wandb.
    """

    def __init__(self, place: str, mode: str = "", dir: str = "") -> None:  # noqa: A002 - W&B's own word
        self._wandb: Any = registry.extra("wandb", "wandb", "--log-to wandb")
        entity, _, project = place.rpartition("/")
        self._entity, self._project = entity or None, project or DEFAULT_PROJECT
        self._mode, self._dir = mode or os.environ.get("WANDB_MODE", "online"), dir or None
        if self._mode not in MODES:
            raise registry.unknown("mode of --log-to wandb", self._mode, MODES)
        if self._mode == "online" and not self._wandb.login(prompt=False, verify=False):
            raise UsageError(
                "--log-to wandb finds no key: run `wandb login`, set WANDB_API_KEY, or write wandb:PROJECT?mode=offline"
            )

    def begin(self, subject: Subject) -> None:
        """Begin a W&B run, or go on with that of an earlier time."""
        if self._dir is not None:
            os.makedirs(self._dir, exist_ok=True)
        self._run = self._wandb.init(
            entity=self._entity,
            project=self._project,
            name=subject.name,
            id=subject.identity,
            job_type=subject.kind,
            config=dict(subject.settings),
            mode=self._mode,
            dir=self._dir,
            resume="allow",
            reinit="create_new",
            settings=self._settings(),
        )
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")  # W&B's own counter refuses steps that are taken again

    def _settings(self) -> Any:
        """Numbers and settings leave this machine, and nothing else: no code, output, packages, statistics, command."""
        return self._wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,
            init_timeout=30,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers."""
        self._run.log({**numbers, "update": step})

    def close(self) -> None:
        """End the W&B run."""
        self._run.finish()
