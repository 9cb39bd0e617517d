"""The header of a run: what was asked, of which code, weights and data. Nothing here opens a file."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, Self

from bench.records.files import RecordsError
from bench.records.stored import Asked, Check, Chosen, State, Step, typed
from bench.records.types import CLEAN, SCHEMA_VERSION, encode, number, parse_object

NORMS = ("linf", "l2")
STATUSES = ("started", "complete", "partial", "failed")
ADDED = ("config", "ceiling", "notes", "answers", "chosen_order")  # came after runs of schema version 1
_FORMER_ANSWERS = {"zeroshot": "class", "pope": "yes-no", "scienceqa": "choice"}  # of tasks, before headers said it
FLOORS = {"noise"}  # kinds of attack that are no real attack but what one is set beside
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
        notes: What a reader of the numbers should know of the data, such as that too few people answered a question.
        answers: What the answers are, as the task says; "" in headers that do not say it. See `answer_kind`.
        chosen_order: The order of radii that the first samples of an adaptive run chose; "" before, and of other runs.
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
    notes: tuple[str, ...] = ()
    answers: str = ""
    chosen_order: Literal["", "ascending", "descending"] = ""

    def __post_init__(self) -> None:
        for field_name, wrong, rule in self._faults():
            if wrong:
                raise RecordsError(f"{field_name} is {getattr(self, field_name)!r}; it must be {rule}")
        typed(self.checks, list[Check], "checks")
        typed(self.config, Asked, "config")
        _ = self.steps, self._chosen, self._state  # refused now rather than when they are asked for

    def _faults(self) -> Iterator[tuple[str, bool, str]]:
        """Each field with a rule, whether it breaks it, and the rule."""
        largest = 255.0 if self.norm == "linf" else math.inf
        ceiling = 1.0 if self.ceiling is None else self.ceiling
        yield "schema_version", self.schema_version != SCHEMA_VERSION, f"{SCHEMA_VERSION}, the one of this program"
        yield "worst", self.worst not in ("min", "max"), '"min" or "max"'
        yield "norm", self.norm not in NORMS, f"one of {', '.join(NORMS)}"
        yield "status", self.status not in STATUSES, f"one of {', '.join(STATUSES)}"
        yield "radii", not all(0 <= r <= largest and r < math.inf for r in self.radii), f"finite, from 0 to {largest:g}"
        yield "n_samples", self.n_samples < 1, "at least 1"
        yield "limit", self.limit is not None and self.limit < 1, "at least 1, or null"
        yield "ceiling", not 0 < ceiling < math.inf, "above 0 and finite, or null"

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
    def is_cider(self) -> bool:
        """Whether scores are CIDEr: without a ceiling, and weighed by the captions of all images together."""
        return _is_cider(self.metric)

    @property
    def surrogate(self) -> str | None:
        """The encoder or encoders that the attacks were made on; None if they were made on the victim itself."""
        return self._chosen.surrogate

    @property
    def surrogates(self) -> tuple[str, ...]:
        """The same, encoder by encoder."""
        return tuple(self.ensemble) or ((self.surrogate,) if self.surrogate else ())

    @property
    def ensemble(self) -> dict[str, float]:
        """Each surrogate's share of the loss, of an ensemble; empty without one."""
        return self._chosen.ensemble

    @property
    def surrogate_model(self) -> str | None:
        """The vision-language model that the attacks were made on; None if it is the one under test."""
        return self._chosen.surrogate_model

    @property
    def victim_settings(self) -> dict[str, str]:
        """What was chosen of the vision-language model: by the protocol, the suite or the user."""
        return self._chosen.victim

    @property
    def surrogate_settings(self) -> dict[str, str]:
        """The same of the one that the attacks were made on."""
        return self._chosen.surrogate_victim

    @property
    def protocol_name(self) -> str:
        """Name of the protocol; a run that names none followed the strict one."""
        return self._chosen.name

    @property
    def precision(self) -> str:
        """Search precision: "float32", "bf16" or "fp16"."""
        return self._chosen.precision

    @property
    def half_verdicts(self) -> bool:
        """Whether an answer of the model in half precision is final."""
        return self._chosen.half_verdicts

    @property
    def cumulative_radii(self) -> bool:
        """Whether a sample is left with the worst of a radius and all smaller ones, or of that radius alone."""
        return self._chosen.cumulative_radii

    @property
    def radii_order(self) -> str:
        """The order in which the radii were attacked: one of `tasks.protocol.RADII_ORDERS`."""
        return self._chosen.radii_order

    @property
    def compiled(self) -> bool:
        """Whether the models were compiled."""
        return self._chosen.compiled

    @property
    def tower(self) -> str:
        """Which image tower the vision-language model looks through: "encoder" or its own, "native"."""
        return self._chosen.tower

    @property
    def defence(self) -> str | None:
        """Defences around the victim as they were asked for, comma-separated; None without one."""
        return self._chosen.defence

    @property
    def judge(self) -> str | None:
        """What compared answers with what was wanted; None where a task needs none."""
        return self._chosen.judge

    @property
    def selection(self) -> str | None:
        """How the samples were drawn, such as "seed-42"; None if they are the first of the dataset."""
        return self._chosen.selection

    @property
    def data(self) -> str | None:
        """The place of a dataset that was named by where it lies, as FORMAT:PLACE; None for a dataset of the suite."""
        return self._chosen.data

    @property
    def images(self) -> str | None:
        """Digest of the adversarial images, where they were made elsewhere."""
        return self._chosen.images

    @property
    def answer_kind(self) -> str:
        """What the answers are: "text", "class", "yes-no", "choice", or a plugin's own word."""
        return self.answers or former_answers(self.task)

    @property
    def yes_no_rule(self) -> str:
        """How an answer is read as yes or no: a name of `tasks.metrics.yes_no.RULES`."""
        return self._chosen.yes_no

    @property
    def is_floor(self) -> bool:
        """Whether the images are random ones of the ball, and not those of an attack."""
        return bool(self.steps) and all(step.kind in FLOORS for step in self.steps)

    @property
    def commit(self) -> str | None:
        """Commit of the code; None outside a checkout."""
        return self._state.commit

    @property
    def dirty(self) -> bool:
        """Whether the code had changes that were not committed."""
        return bool(self._state.dirty)

    @property
    def half_steps(self) -> frozenset[str]:
        """The steps that search in half precision where the run's precision is one, and "clean"."""
        return frozenset((CLEAN, *(step.name for step in self.steps if step.precision == "search")))

    @cached_property
    def steps(self) -> list[Step]:
        """The steps of the attack, in order."""
        return typed(self.attack_steps, list[Step], "attack_steps")

    @cached_property
    def _chosen(self) -> Chosen:
        return typed(self.protocol, Chosen, "protocol")

    @cached_property
    def _state(self) -> State:
        return typed(self.code, State, "code")

    def to_json(self) -> str:
        """Indented JSON. NaN in a free-form field becomes the string "nan" and stays one."""
        data = encode(asdict(self))
        if not self.chosen_order:
            del data["chosen_order"]
        return json.dumps(data, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The header that `to_json` wrote, now or in schema version 1.

        Raises:
            RecordsError: If a key is unknown or missing, a value has another type or is out of range, or the schema is
                another.
        """
        data = parse_object(text, (f.name for f in fields(cls)), ADDED, _FORMER)
        if data["schema_version"] == 1:
            data["schema_version"] = SCHEMA_VERSION
        data["attack_steps"] = _with_defaults(data["attack_steps"])
        if isinstance(data["metric"], str):
            data.setdefault("ceiling", former_ceiling(data["metric"]))
        if isinstance(data["task"], str):
            data.setdefault("answers", former_answers(data["task"]))
        if isinstance(data["radii"], list):
            data["radii"] = [number(radius) for radius in data["radii"]]
        return typed(data, cls)


def _with_defaults(steps: Any) -> Any:
    """Attack steps with the fields that the first runs did not write, as they were carried out."""
    if not isinstance(steps, list):
        return steps
    added = {"precision": "search", "volley": ""}
    return [{**added, **step} if isinstance(step, dict) and "kind" in step else step for step in steps]


def former_ceiling(metric: str) -> float | None:
    """The ceiling of a metric whose header does not say it: 100 for a percentage, None for CIDEr."""
    return None if _is_cider(metric) else 100.0


def _is_cider(metric: str) -> bool:
    return metric.casefold().startswith("cider")


def former_answers(task: str) -> str:
    """What the answers to a task are whose header does not say it."""
    return _FORMER_ANSWERS.get(task, "text")


VOLATILE = ("code", "packages", "device", "started", "ended", "status", "checks", "config", "notes", "chosen_order")
IDENTITY = tuple(f.name for f in fields(RunHeader) if f.name not in VOLATILE)
_UNSAID: dict[str, Any] = encode(Chosen())


def differences(first: RunHeader, second: RunHeader, names: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """The fields in which two headers differ, with both values; of free-form fields the keys: "protocol.name".

    What a protocol does not say has the value that it stands for: no "radii_order" is the same as "ascending".
    """
    found = []
    for name in names:
        one, other = encode(getattr(first, name)), encode(getattr(second, name))
        if name == "protocol":
            one, other = _UNSAID | one, _UNSAID | other
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
            found += [(f"{name}.{key}", one.get(key), other.get(key)) for key in keys]
        elif one != other:
            found.append((name, one, other))
    return found
