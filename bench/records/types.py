"""One record, the header of a run, and how both become JSON. Nothing here opens a file."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from bench.records.files import RecordsError

SCHEMA_VERSION = 2
CLEAN = "clean"
STATUSES = ("started", "complete", "partial", "failed")
ADDED = ("config",)  # header fields that came after the first runs of this schema version were archived
Key = tuple[str, str, float]
_NUMBERS = ("radius", "distance", "seconds", "score", "loss", "png_score")
_MAYBE_ABSENT = ("score", "loss", "png_score")
_OPTIONAL = ("png_score", "loss_curve")  # keys that a line has only where there is a value
_FORMER = {"eps_255": "radius", "distance_255": "distance", "course": "loss_curve"}  # names in schema version 1
_FORMER_HEADER = {"eps_255": "radii"}
_DROPPED = ("flags",)  # of schema version 1, where it was always empty


def encode(value: Any) -> Any:
    """JSON data for `value`; NaN and infinities become the strings "nan", "inf", "-inf", never null or 0."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def number(value: Any) -> float:
    """The float that `encode` wrote."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(value)
    raise RecordsError(f"{value!r} is not a number")


def _are_floats(values: Any) -> bool:
    return type(values) is tuple and all(type(value) is float for value in values)


def _parse(
    text: str | bytes, known: Iterable[str], optional: Iterable[str], former: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON object in `text`, which must have exactly the keys `known`; those in `optional` may be absent.

    Keys under their names of schema version 1 count as those of today.
    """

    def refuse(constant: str) -> None:
        raise RecordsError(f'bare {constant} in JSON; it is written as the string "nan", "inf" or "-inf"')

    try:
        data = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise RecordsError(f"not JSON ({error})") from error
    if not isinstance(data, dict):
        raise RecordsError(f"not a JSON object but a {type(data).__name__}")
    if not former.keys().isdisjoint(data):
        data = {former.get(key, key): value for key, value in data.items() if key not in _DROPPED}
    known = set(known)
    if unknown := sorted(data.keys() - known):
        raise RecordsError(f"unknown key {', '.join(unknown)} (written by a newer version?)")
    if missing := sorted(known - data.keys() - set(optional)):
        raise RecordsError(f"missing key {', '.join(missing)}")
    return data


class Record(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What one step did to one sample.

    Attributes:
        sample_id: The sample, unique within the dataset.
        group: What to cluster by in statistics: the image id.
        step: "clean", or the name of the attack step, such as "apgd-ce" or "reference-0".
        radius: In 1/255 of the pixel range for l-inf, in plain units for l2; 0.0 for clean.
        prediction: The model's answer, as it was scored.
        score: On the metric's published scale (percent, or CIDEr x 100); None only with an error.
        loss: The objective's value; may be NaN or infinite.
        distance: Distance to the clean image, in the unit of `radius`.
        evaluations: Gradient evaluations spent.
        error: Why there is no score; None if there is one.
        seconds: Wall-clock time, shared evenly over the batch.
        png_score: Score of the adversarial image after a round trip through an 8-bit PNG; None if not asked for.
        loss_curve: The highest loss among the first 1, 2, 4, 8, ... images that the attack tried; None where it was
            not watched.

    Raises:
        RecordsError: If a field has another type than is written here, or the score is absent or not
            finite although no error is given: a NaN is neither robust nor a success.
    """

    sample_id: str
    group: str
    step: str
    radius: float
    prediction: str
    score: float | None
    loss: float | None
    distance: float
    evaluations: int
    error: str | None
    seconds: float
    png_score: float | None = None
    loss_curve: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self._has_plain_types():
            self._check_types()
        if not 0 <= self.radius < math.inf or (self.step == CLEAN and self.radius != 0):
            raise RecordsError(f"radius is {self.radius} in step {self.step!r}; clean is 0, an attack >= 0")
        if self.error is None and (self.score is None or not math.isfinite(self.score)):
            raise RecordsError(f"score is {self.score} for sample {self.sample_id!r} without an error")

    def _has_plain_types(self) -> bool:
        """Whether there is nothing to complain of: quick, for it is asked of every record that is read."""
        return (
            type(self.sample_id) is type(self.group) is type(self.step) is type(self.prediction) is str
            and type(self.radius) is type(self.distance) is type(self.seconds) is float
            and (self.score is None or type(self.score) is float)
            and (self.loss is None or type(self.loss) is float)
            and (self.png_score is None or type(self.png_score) is float)
            and type(self.evaluations) is int
            and self.evaluations >= 0
            and self.error is None
            and (self.loss_curve is None or _are_floats(self.loss_curve))
        )

    def _check_types(self) -> None:
        for name in ("sample_id", "group", "step", "prediction"):
            if not isinstance(getattr(self, name), str):
                raise RecordsError(f"{name} must be a string, not {getattr(self, name)!r}")
        for name in _NUMBERS:
            value = getattr(self, name)
            absent = value is None and name in _MAYBE_ABSENT
            if not absent and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise RecordsError(f"{name} must be a number, not {value!r}")
        if type(self.evaluations) is not int or self.evaluations < 0:
            raise RecordsError(f"evaluations must be a count, not {self.evaluations!r}")
        if not (self.error is None or isinstance(self.error, str)):
            raise RecordsError(f"error must be a string or None, not {self.error!r}")
        if not (self.loss_curve is None or _are_floats(self.loss_curve)):
            raise RecordsError(f"loss_curve must be a tuple of numbers or None, not {self.loss_curve!r}")

    @property
    def key(self) -> Key:
        """What may be recorded only once: (sample_id, step, radius)."""
        return self.sample_id, self.step, float(self.radius)

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        data = {name: encode(getattr(self, name)) for name in self.__struct_fields__}
        for name in _OPTIONAL:
            if data[name] is None:
                del data[name]
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record that `to_json` wrote, now or in schema version 1.

        Raises:
            RecordsError: If a key is unknown or missing, or a value has the wrong type.
        """
        data = _parse(text, cls.__struct_fields__, _OPTIONAL, _FORMER)
        for name in _NUMBERS:
            if data.get(name) is not None:
                data[name] = number(data[name])
        if isinstance(data.get("loss_curve"), list):
            data["loss_curve"] = tuple(number(loss) for loss in data["loss_curve"])
        return cls(**data)


class FormerRecord(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A line of schema version 1: `Record` under its former names."""

    sample_id: str
    group: str
    step: str
    eps_255: float
    prediction: str
    score: float | None
    loss: float | None
    distance_255: float
    evaluations: int
    flags: tuple[str, ...]
    error: str | None
    seconds: float
    png_score: float | None = None
    course: tuple[float, ...] | None = None

    def renamed(self) -> Record:
        """The same under today's names."""
        return Record(
            self.sample_id,
            self.group,
            self.step,
            self.eps_255,
            self.prediction,
            self.score,
            self.loss,
            self.distance_255,
            self.evaluations,
            self.error,
            self.seconds,
            self.png_score,
            self.course,
        )


@dataclass(frozen=True)
class RunHeader:
    """Where a run's numbers come from.

    Attributes:
        schema_version: Version of this format, `SCHEMA_VERSION`.
        suite: Name of the suite, such as "mini".
        encoder: Name of the CLIP image encoder under test.
        task: Task family, such as "vqa".
        task_version: Anything that moves a score bumps it.
        dataset: Name of the dataset.
        metric: Name of the metric, such as "accuracy" or "CIDEr".
        worst: The direction in which the attacker pushes the score.
        norm: "linf" or "l2".
        attack: Name of the attack preset.
        radii: In 1/255 of the pixel range for l-inf, in plain units for l2; clean excluded.
        seed: Seed from which the runner draws all randomness.
        n_samples: Number of samples that the run is to score, after `limit`.
        limit: Number of samples asked for with --limit, which makes the run partial; None for all.
        model: Name of the vision-language model around the encoder; None without one.
        dataset_fingerprint: Digest of the data.
        weights: Name of each file of weights -> sha256.
        attack_steps: The steps of the attack preset, as data.
        protocol: Everything else that moves a score (precision, prompts, ...), free form.
        code: {"commit": ..., "dirty": ..., "source": digest of the source files}.
        packages: Name -> version.
        device: The device, in words.
        started: Start, ISO 8601.
        ended: End, ISO 8601; None until the run is finished.
        status: One of `STATUSES`.
        checks: Verdicts on the run, each {"name", "ok", "detail"}.
        config: The whole resolved request, also what moves no score (batch size, device, output); empty in runs
            from before it was kept.
    """

    schema_version: int
    suite: str
    encoder: str
    task: str
    task_version: int | str
    dataset: str
    metric: str
    worst: Literal["min", "max"]
    norm: str
    attack: str
    radii: tuple[float, ...]
    seed: int
    n_samples: int
    limit: int | None
    model: str | None
    dataset_fingerprint: str
    weights: dict[str, str]
    attack_steps: list[dict[str, Any]]
    protocol: dict[str, Any]
    code: dict[str, Any]
    packages: dict[str, str]
    device: str
    started: str
    ended: str | None = None
    status: str = "started"
    checks: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise RecordsError(f"schema_version is {self.schema_version}, this version has {SCHEMA_VERSION}")
        if self.worst not in ("min", "max"):
            raise RecordsError(f'worst must be "min" or "max", not {self.worst!r}')
        if self.status not in STATUSES:
            raise RecordsError(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        if not all(0 <= radius < math.inf for radius in self.radii):
            raise RecordsError(f"radii must be finite and >= 0, not {self.radii}")

    @property
    def partial(self) -> str | None:
        """Why the run's numbers are not those of the whole run, in words; None if they are."""
        if self.limit is not None:
            return f"--limit {self.limit}"
        return None if self.status == "complete" else f"status {self.status}"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Names of the sanity checks that failed: the run's numbers may mean nothing."""
        return tuple(str(check["name"]) for check in self.checks if not check["ok"])

    def to_json(self) -> str:
        """Indented JSON. NaN in a free-form field becomes the string "nan" and stays one."""
        return json.dumps(encode(asdict(self)), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The header that `to_json` wrote, now or in schema version 1.

        Raises:
            RecordsError: If a key is unknown or missing, or the schema is another.
        """
        data = _parse(text, (f.name for f in fields(cls)), ADDED, _FORMER_HEADER)
        if data["schema_version"] == 1:
            data["schema_version"] = SCHEMA_VERSION
        data["radii"] = tuple(number(radius) for radius in data["radii"])
        return cls(**data)


VOLATILE = ("code", "packages", "device", "started", "ended", "status", "checks", "config")
IDENTITY = tuple(f.name for f in fields(RunHeader) if f.name not in VOLATILE)


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk."""

    directory: Path
    header: RunHeader
    records: list[Record]
