"""The header of a run: what was asked, of which code, weights and data. Nothing here opens a file."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from bench.records.files import RecordsError
from bench.records.types import CLEAN, SCHEMA_VERSION, Record, encode, number, parse_object

STATUSES = ("started", "complete", "partial", "failed")
ADDED = ("config", "ceiling")  # fields that came after the first runs of schema version 1 were archived
_FORMER = {"eps_255": "radii"}  # names in schema version 1


@dataclass(frozen=True)
class RunHeader:
    """Where a run's numbers come from.

    What `protocol` and `config` say is asked through the properties; no other module looks up their keys.

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
        checks: Sanity checks on the run, each {"name", "ok", "detail"}.
        config: The whole resolved request, also what moves no score (batch size, device, output); empty in runs
            from before it was kept.
        ceiling: The most that a sample can score on the metric; None where there is no bound.
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
    ceiling: float | None = None

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

    @property
    def surrogate(self) -> str | None:
        """The encoder that the attacks were made on; None if it is the encoder under test."""
        return self._text("surrogate")

    @property
    def protocol_name(self) -> str:
        """Name of the protocol; a run that names none followed the strict one."""
        return self._text("name") or "strict"

    @property
    def precision(self) -> str:
        """Precision of the attacks' searches: "float32", "bf16" or "fp16"."""
        return self._text("precision") or "float32"

    @property
    def half_verdicts(self) -> bool:
        """Whether an answer of the model in half precision is final."""
        return bool(self.protocol.get("half_verdicts", False))

    @property
    def compiled(self) -> bool:
        """Whether the models were compiled."""
        return bool(self.protocol.get("compiled", False))

    @property
    def tower(self) -> str:
        """Which image tower the vision-language model looks through: "encoder" or its own, "native"."""
        return self._text("tower") or "encoder"

    @property
    def vlm(self) -> str | None:
        """Name of the vision-language model around the encoder; None without one."""
        return self.model

    @property
    def defence(self) -> str | None:
        """Name of the defence around the victim; None without one."""
        return self._text("defence")

    @property
    def selection(self) -> str | None:
        """How the samples were drawn, such as "seed-42"; None if they are the first of the dataset."""
        return self._text("selection")

    @property
    def data(self) -> str | None:
        """The place of a dataset that was named by where it lies, as FORMAT:PLACE; None for a dataset of the suite."""
        return self._text("data")

    @property
    def data_root(self) -> Path | None:
        """The folder under which the suite's datasets lay; None if none was named."""
        return Path(root) if isinstance(root := self.config.get("data_root"), str) and root else None

    @property
    def arch(self) -> str | None:
        """The open_clip architecture that was named for an encoder given as a path."""
        return arch if isinstance(arch := self.config.get("arch"), str) else None

    @property
    def place(self) -> Mapping[str, Any] | None:
        """Name, row, root and description of a dataset that was named by where it lies."""
        return place if isinstance(place := self.config.get("place"), Mapping) and place else None

    @property
    def commit(self) -> str | None:
        """Commit of the code; None outside a checkout."""
        return commit if isinstance(commit := self.code.get("commit"), str) else None

    @property
    def dirty(self) -> bool:
        """Whether the code had changes that were not committed."""
        return bool(self.code.get("dirty"))

    @property
    def half_steps(self) -> frozenset[str]:
        """The steps that search in half precision where the run's precision is one, and "clean"."""
        searches = (str(step.get("name")) for step in self.attack_steps if step.get("precision") == "search")
        return frozenset((CLEAN, *searches))

    def _text(self, key: str) -> str | None:
        value = self.protocol.get(key)
        return None if value is None else str(value)

    def to_json(self) -> str:
        """Indented JSON. NaN in a free-form field becomes the string "nan" and stays one."""
        return json.dumps(encode(asdict(self)), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The header that `to_json` wrote, now or in schema version 1.

        Raises:
            RecordsError: If a key is unknown or missing, or the schema is another.
        """
        data = parse_object(text, (f.name for f in fields(cls)), ADDED, _FORMER)
        if data["schema_version"] == 1:
            data["schema_version"] = SCHEMA_VERSION
        data.setdefault("ceiling", former_ceiling(str(data["metric"])))
        data["radii"] = tuple(number(radius) for radius in data["radii"])
        return cls(**data)


def former_ceiling(metric: str) -> float | None:
    """The ceiling of a metric whose header does not say it: 100 for a percentage, None for CIDEr."""
    return None if metric.casefold().startswith("cider") else 100.0


VOLATILE = ("code", "packages", "device", "started", "ended", "status", "checks", "config")
IDENTITY = tuple(f.name for f in fields(RunHeader) if f.name not in VOLATILE)


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk."""

    directory: Path
    header: RunHeader
    records: list[Record]


def differences(first: RunHeader, second: RunHeader, names: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """The fields in which two headers differ, with both values; of free-form fields the keys: "protocol.name"."""
    found = []
    for name in names:
        one, other = encode(getattr(first, name)), encode(getattr(second, name))
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
            found += [(f"{name}.{key}", one.get(key), other.get(key)) for key in keys]
        elif one != other:
            found.append((name, one, other))
    return found
