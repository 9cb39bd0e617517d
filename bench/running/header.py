"""The header of a run: what was asked, and of which code, weights and data the numbers come."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from attacks.adaptive import EOT_DRAWS
from bench.config import DEFAULT_PROTOCOL, RunConfig
from bench.data.selection import FIRST
from bench.models.defences.load import load_chain
from bench.provenance import code_state
from bench.records import SCHEMA_VERSION, RunHeader
from bench.running.data import selection_of
from bench.running.scoring import DRAWS
from bench.running.victims import vlm_of
from tasks.base import Task
from tasks.protocol import ASCENDING, PROTOCOLS

PACKAGES = ("torch", "torchvision", "transformers", "open_clip_torch", "numpy", "pillow")


def header_of(
    config: RunConfig,
    task: Task,
    weights: Mapping[str, str],
    data_digest: str,
    device: torch.device,
    victims: Mapping[str, Any] | None = None,
    brought: str | None = None,
) -> RunHeader:
    """The header of a run that is about to begin.

    Args:
        config: what was asked.
        task: with its dataset.
        weights: sha256 of each part of the models, by its name.
        data_digest: of the samples and their pixels.
        device: where the run computes.
        victims: what of the protocol the vision-language models brought along; see `bench.running.victims.chosen_of`.
        brought: digest of adversarial images made elsewhere.
    """
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        suite=config.suite_name,
        encoder=config.encoder,
        task=config.task,
        task_version=task.version,
        dataset=config.dataset,
        metric=task.metric,
        worst=task.worst,
        norm=config.norm,
        attack=config.attack_name,
        radii=config.eps if config.steps else (),
        seed=config.seed,
        n_samples=len(task.dataset.samples),
        limit=config.limit,
        model=vlm_of(config) if task.model == "vlm" else None,
        dataset_fingerprint=data_digest,
        weights=dict(weights),
        attack_steps=[step.as_data() for step in config.steps],
        protocol=_protocol(config) | _judge(task) | dict(victims or {}) | ({"images": brought} if brought else {}),
        code=code_state(),
        packages={name: version(name) for name in PACKAGES},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.request.as_json(),
        ceiling=task.ceiling,
        notes=tuple(task.dataset.notes),
        answers=getattr(task, "answers", "text"),
    )


def _judge(task: Task) -> dict[str, str]:
    """What compares answers with what was wanted, of a task that has such a judge."""
    judge = getattr(task, "compare", None)
    return {} if judge is None else {"judge": judge.name}


def _protocol(config: RunConfig) -> dict[str, Any]:
    """What beside the attack moves a number; a strict run in float32 says no more than that."""
    chosen: dict[str, Any] = {"precision": config.precision}
    if config.protocol != DEFAULT_PROTOCOL:
        chosen |= asdict(PROTOCOLS[config.protocol])
    if config.radii_order not in (None, ASCENDING):
        chosen["radii_order"] = config.radii_order
    if config.compiled:
        chosen["compiled"] = True
    if config.tower != "encoder":
        chosen["tower"] = config.tower
    if config.place is not None:
        chosen["data"] = config.place.where
    if config.repeats is not None:
        chosen["repeats"] = config.repeats
    if (selection := selection_of(config)) != FIRST:
        chosen["selection"] = selection
    if config.defence:
        chosen["defence"] = ",".join(config.defence)
        chosen["defence_options"] = load_chain(config.defence).options()
        chosen["defence_draws"] = {**DRAWS, "attack": EOT_DRAWS}
    if config.surrogate:
        chosen["surrogate"] = config.surrogate
    if len(config.surrogates) > 1:
        chosen["ensemble"] = dict(zip(config.surrogates, config.weights, strict=True))
    return chosen
