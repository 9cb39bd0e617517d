"""What a run works with, loaded: data, encoder, model and task, and the header that says where each came from."""

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.config import DEFAULT_PROTOCOL, RunConfig, load_suite, preset
from bench.data import embedded
from bench.data.images import fingerprint, open_image
from bench.data.readers import load as read_dataset
from bench.errors import UsageError
from bench.models import catalogue
from bench.models.encoder import Encoder
from bench.models.load import digest, load_encoder
from bench.provenance import code_state
from bench.records import SCHEMA_VERSION, RunHeader
from tasks.base import Dataset, Sample, Task, Victim
from tasks.protocol import PROTOCOLS

PACKAGES = ("torch", "torchvision", "transformers", "open_clip_torch", "numpy", "pillow")


@dataclass(frozen=True)
class Setup:
    """Everything a run works with, loaded."""

    task: Task
    victim: Victim
    surrogate: Victim  # whose gradients the attack follows; the victim itself unless the attack is a transfer
    images: Tensor  # (N, 3, H, W) float32 in [0, 1], on the device
    header: RunHeader

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples to score, in order; sample i has image i."""
        return self.task.dataset.samples  # type: ignore[attr-defined]


def prepare(config: RunConfig) -> Setup:
    """Load data, encoder and model of a run."""
    device = _device(config.device)
    dataset = load_dataset(config)
    if not dataset.samples:
        raise UsageError(f"data set {config.dataset!r} holds no samples")
    task_class: Any = registry.resolve("bench.tasks", config.task)
    task: Task = task_class(dataset, PROTOCOLS[config.protocol])
    _check_goals(task, config, dataset.samples[0])
    encoder = load_encoder(config.encoder, load_suite(config.suite).encoders).to(device)
    model = _model(task, encoder, config)
    victim = task.bind(model)
    surrogate, weights = victim, {"encoder": digest(encoder.visual), "text": digest(encoder.text)}
    if config.surrogate is not None:
        source = load_encoder(config.surrogate, load_suite(config.suite).encoders).to(device)
        surrogate = task.bind(_model(task, source, config))
        weights["surrogate"] = digest(source.visual)
    if task.model == "vlm":
        weights["language"] = digest(model.model)
    pictures = [open_image(sample.image) for sample in dataset.samples]
    images = torch.stack([model.preprocess(picture) for picture in pictures]).to(device)
    header = _header(config, task, weights, fingerprint(dataset, pictures), device)
    return Setup(task, victim, surrogate, images, header)


def _check_goals(task: Task, config: RunConfig, sample: Sample) -> None:
    """Refuse an attack that was made for another task before anything is computed."""
    for step in () if config.attack == "none" else preset(config.attack).steps:
        if step.goal == "best":
            continue
        try:
            task.applies(step.goal, sample)
        except ValueError as error:
            raise UsageError(f"attack {config.attack!r} does not fit task {config.task!r}: {error}") from error


def load_dataset(config: RunConfig) -> Dataset:
    """The samples a run scores: from files under the data root, or embedded in the package."""
    if config.data_root is None:
        return embedded.load(config.dataset, config.n_samples)
    rows = load_suite(config.suite).datasets
    if config.dataset not in rows:
        raise UsageError(f"suite {config.suite!r} does not say where {config.dataset!r} lies under a data root")
    dataset = read_dataset(config.dataset, rows[config.dataset], config.data_root)
    if len(dataset.samples) < config.n_samples:
        raise UsageError(
            f"{config.dataset} under {config.data_root} has {len(dataset.samples)} samples, {config.n_samples} are "
            f"asked for; use --limit {len(dataset.samples)}"
        )
    return Dataset(**{**dataset.__dict__, "samples": dataset.samples[: config.n_samples]})


def _model(task: Task, encoder: Encoder, config: RunConfig) -> Any:
    if task.model == "encoder":
        return encoder
    from bench.models.llava import load_llava
    from bench.models.memory import make_room

    suite = load_suite(config.suite)
    model = load_llava(
        catalogue.resolve_path(_vlm(config)),
        encoder,
        tower=config.tower,
        conversation_name=suite.conversation,
        pad_to_square=suite.image_aspect_ratio == "pad",
    )
    make_room(model, config.batch_size, model.device)
    return model


def _vlm(config: RunConfig) -> str:
    return config.vlm or load_suite(config.suite).vlm


def _protocol(config: RunConfig) -> dict[str, Any]:
    """What beside the attack moves a number; a strict run in float32 says no more than that."""
    if config.protocol == DEFAULT_PROTOCOL:
        chosen: dict[str, Any] = {"precision": config.precision}
    else:
        chosen = {"precision": config.precision, **asdict(PROTOCOLS[config.protocol])}
    if config.tower != "encoder":
        chosen["tower"] = config.tower
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
    dataset: Dataset = task.dataset  # type: ignore[attr-defined]
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
        eps_255=config.eps if steps else (),
        seed=config.seed,
        n_samples=len(dataset.samples),
        limit=config.limit,
        model=_vlm(config) if task.model == "vlm" else None,
        dataset_fingerprint=data_digest,
        weights=weights,
        attack_steps=[asdict(step) for step in steps],
        protocol=_protocol(config) | (_asking(config) if task.model == "vlm" else {}),
        code=code_state(),
        packages={name: version(name) for name in PACKAGES},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
