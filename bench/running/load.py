"""What a run works with, loaded: data, encoder, model and task, and the header that says where each came from."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from attacks.presets import EMBEDDING
from bench import registry
from bench.config import DEFAULT_PROTOCOL, RunConfig, load_suite, preset
from bench.data.bank import Images, ids_left_out, read_pictures
from bench.data.readers import load as read_dataset
from bench.data.readers import load_embedded
from bench.data.selection import FIRST, select
from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest, load_encoder
from bench.models.encoders.stored import compile_blocks
from bench.models.victims.load import load_victim
from bench.provenance import code_state
from bench.records import SCHEMA_VERSION, RunHeader, read_header
from bench.running.kinds import check_steps
from tasks.base import Dataset, Sample, Task, Victim
from tasks.protocol import PROTOCOLS

PACKAGES = ("torch", "torchvision", "transformers", "open_clip_torch", "numpy", "pillow")


@dataclass(frozen=True)
class HalfPrecision:
    """The surrogate and its encoder, computing in half precision."""

    victim: Victim
    encoder: Encoder


@dataclass(frozen=True)
class Setup:
    """Everything a run works with, loaded."""

    task: Task
    victim: Victim
    surrogate: Victim  # whose gradients the attack follows; the victim itself unless the attack is a transfer
    encoder: Encoder  # of the surrogate
    images: Images  # indexed with rows: (b, 3, H, W) float32 in [0, 1], on the device
    header: RunHeader
    unreadable: Mapping[str, str]  # why a sample cannot be asked, by its id; its image is black
    half: "HalfPrecision | None" = None  # the surrogate where the search is in half precision

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples to score, in order; sample i has image i."""
        return self.task.dataset.samples


def prepare(config: RunConfig) -> Setup:
    """Load data, encoder and model of a run."""
    device = _device(config.device)
    dataset = load_dataset(config)
    task_class: Any = registry.resolve("bench.tasks", config.task)
    _check_fits(task_class, config, dataset)
    task: Task = task_class(dataset, PROTOCOLS[config.protocol])
    _check_goals(task, config, dataset.samples[0])
    encoder = load_encoder(config.encoder, load_suite(config.suite).encoders, config.arch).to(device)
    model = _model(task, encoder, config)
    victim = task.bind(model)
    weights = {"encoder": digest(encoder.visual), "text": digest(encoder.text)}
    source, gradient_model, surrogate = encoder, model, victim
    if config.surrogate is not None:
        source = load_encoder(config.surrogate, load_suite(config.suite).encoders, config.arch).to(device)
        gradient_model = _model(task, source, config)
        surrogate = task.bind(gradient_model)
        weights["surrogate"] = digest(source.visual)
    half: HalfPrecision | None = None
    used = [encoder, model, source, gradient_model]
    if config.precision != "float32":
        used += [gradient_model.at(config.precision), source.at(config.precision)]
        half = HalfPrecision(task.bind(used[-2]), used[-1])
    for part in used if config.compiled else ():
        compile_blocks(part)
    if task.model == "vlm":
        weights |= model.digests()
    preprocess = to_tensor if dataset.native_size else model.preprocess
    pictures = read_pictures(
        dataset, preprocess, device, upright=PROTOCOLS[config.protocol].upright, left_out=_left_out(config.directory)
    )
    header = _header(config, task, weights, pictures.fingerprint, device)
    return Setup(task, victim, surrogate, source, pictures.images, header, pictures.broken, half)


def _left_out(directory: Path) -> frozenset[str]:
    """Samples whose pictures were broken when the run in this directory began: they may have been fixed since."""
    if not (directory / "run.json").is_file():
        return frozenset()
    return ids_left_out(read_header(directory).dataset_fingerprint)


def _check_fits(task_class: Any, config: RunConfig, dataset: Dataset) -> None:
    """Refuse samples that a task cannot ask."""
    if not dataset.samples:
        raise UsageError(f"dataset {config.dataset!r} holds no samples")
    if reason := task_class.fits(dataset):
        raise UsageError(f"dataset {config.dataset!r} does not suit task {config.task!r}: it {reason}")


def _check_goals(task: Task, config: RunConfig, sample: Sample) -> None:
    """Refuse an attack that was made for another task before anything is computed."""
    steps = () if config.attack == "none" else preset(config.attack).steps
    check_steps(steps)
    for step in steps:
        if step.goal in ("best", EMBEDDING):
            continue
        try:
            task.applies(step.goal, sample)
        except ValueError as error:
            raise UsageError(f"attack {config.attack!r} does not fit task {config.task!r}: {error}") from error


def load_dataset(config: RunConfig) -> Dataset:
    """The samples a run scores: from files under the data root, or embedded in the package.

    Of a dataset that the suite does not know, all samples are taken if there are fewer than the suite's number.
    """
    row = _row(config)
    if config.data_root is None:
        if "embedded" not in row:
            raise UsageError(
                f"dataset {config.dataset!r} is read from files: give --data-root DIR; `bench data check --dataset "
                f"{config.dataset} --suite {config.suite} --data-root DIR` says what must lie there"
            )
        return load_embedded(config.dataset, row, config.n_samples)
    dataset = read_dataset(config.dataset, row, config.data_root)
    for note in dataset.notes:
        tqdm.write(f"{config.dataset}: {note}", file=sys.stderr)
    count = config.n_samples if config.place is None else min(config.n_samples, len(dataset.samples))
    return select(dataset, str(row.get("selection", FIRST)), count)


def _row(config: RunConfig) -> Mapping[str, Any]:
    rows = load_suite(config.suite).datasets
    if config.place is not None:
        return config.place.row
    if config.dataset not in rows:
        raise UsageError(f"suite {config.suite!r} does not say where {config.dataset!r} lies under a data root")
    return rows[config.dataset]


def _model(task: Task, encoder: Encoder, config: RunConfig) -> Any:
    if task.model == "encoder":
        return encoder
    settings = _asking(config) | ({"tower": config.tower} if config.tower != "encoder" else {})
    model = load_victim(_vlm(config), encoder, settings)
    model.make_room(config.batch_size)
    return model


def _vlm(config: RunConfig) -> str:
    return config.vlm or load_suite(config.suite).vlm


def _protocol(config: RunConfig) -> dict[str, Any]:
    """What beside the attack moves a number; a strict run in float32 says no more than that."""
    if config.protocol == DEFAULT_PROTOCOL:
        chosen: dict[str, Any] = {"precision": config.precision}
    else:
        chosen = {"precision": config.precision, **asdict(PROTOCOLS[config.protocol])}
    if config.compiled:
        chosen["compiled"] = True
    if config.tower != "encoder":
        chosen["tower"] = config.tower
    if config.place is not None:
        chosen["data"] = config.place.where
    if config.data_root is not None and (selection := _row(config).get("selection", FIRST)) != FIRST:
        chosen["selection"] = selection
    return chosen | ({"surrogate": config.surrogate} if config.surrogate else {})


def _asking(config: RunConfig) -> dict[str, str]:
    """How a vision-language model is asked, where the suite says otherwise than the checkpoint."""
    suite = load_suite(config.suite)
    chosen = {"conversation": suite.conversation, "image_aspect_ratio": suite.image_aspect_ratio}
    return {key: value for key, value in chosen.items() if value is not None}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; try --device cpu") from error
    return device


def _header(
    config: RunConfig, task: Task, weights: dict[str, str], data_digest: str, device: torch.device
) -> RunHeader:
    steps = () if config.attack == "none" else preset(config.attack).steps
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        suite=config.suite,
        encoder=config.encoder,
        task=config.task,
        task_version=task.version,
        dataset=config.dataset,
        metric=task.metric,
        worst=task.worst,
        norm=config.norm,
        attack=config.attack + (f"-from-{config.surrogate}" if config.surrogate else ""),
        radii=config.eps if steps else (),
        seed=config.seed,
        n_samples=len(task.dataset.samples),
        limit=config.limit,
        model=_vlm(config) if task.model == "vlm" else None,
        dataset_fingerprint=data_digest,
        weights=weights,
        attack_steps=[step.as_data() for step in steps],
        protocol=_protocol(config) | (_asking(config) if task.model == "vlm" else {}),
        code=code_state(),
        packages={name: version(name) for name in PACKAGES},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.as_json(),
        ceiling=task.ceiling,
    )
