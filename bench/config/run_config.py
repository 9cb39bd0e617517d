"""What to run: suites (data), run configurations (validated), and the parsing of radii. Never imports torch."""

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from attacks.presets import PRESETS, Preset
from bench import registry
from bench.data.specs import Place, is_spec, parse_all
from bench.errors import UsageError
from tasks.protocol import PROTOCOLS

DEFAULT_OUTPUT = Path("results/runs")
DEFAULT_PROTOCOL = "strict"
TRANSFER = "transfer"  # the preset that makes sense on a surrogate only
PRECISIONS = ("float32", "bf16", "fp16")
NORMS = ("linf", "l2")
TOWERS = ("encoder", "native")


@dataclass(frozen=True)
class TaskPlan:
    """How a suite runs a task: on which datasets, on how many samples of each, under which attack preset.

    Attributes:
        optional: datasets that are run only when they are named.
        defaults: keys of a row for datasets that the suite does not know: prompts, lengths of answers.
    """

    datasets: tuple[str, ...]
    samples: int
    attack: str
    optional: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Named encoders, models, datasets, threat models and sample counts.

    Attributes:
        encoders: family of rows in the encoder catalogue.
        vlm: folder or hub id of the vision-language model that encoders are swapped into.
        eps: radii in 1/255 for "linf", in plain l2 units for "l2".
        datasets: where each dataset's files lie under a data root, and in which format.
        conversation: how the vision-language model is asked: a name of `bench.models.victims.prompts.CONVERSATIONS`
            ("vicuna_v1" for LLaVA-1.5, with its system sentence); by default the checkpoint's own chat template.
        image_aspect_ratio: "pad" for images padded to squares before they are resized, as LLaVA-1.5 was trained; by
            default what the checkpoint's configuration says, else the encoder's centre crop.
        runs: what lies behind the suite's tables: rows with encoder, task and, for a transfer, surrogate.
    """

    name: str
    about: str
    encoders: str
    vlm: str
    norm: str
    eps: tuple[float, ...]
    seed: int
    tasks: Mapping[str, TaskPlan]
    datasets: Mapping[str, Mapping[str, Any]]
    conversation: str | None = None
    image_aspect_ratio: str | None = None
    runs: tuple[Mapping[str, str], ...] = ()


def suite_names() -> list[str]:
    """The suites that ship with the package."""
    found = resources.files("bench.config.suites").iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in found if entry.name.endswith(".toml"))


@cache
def load_suite(name: str) -> Suite:
    """Read a suite by name.

    Raises:
        UsageError: there is no such suite, or its file holds a key that is not known.
    """
    if name not in suite_names():
        raise registry.unknown("suite", name, suite_names())
    raw = _merged(name)
    if surplus := sorted(raw.keys() - {f.name for f in fields(Suite)}):
        raise UsageError(f"suite {name!r}: unknown keys {surplus}")
    tasks = {task: _plan(name, task, row) for task, row in raw["tasks"].items()}
    runs = tuple(_run(name, row) for row in raw.get("runs", ()))
    return Suite(**{**raw, "name": name, "eps": tuple(map(float, raw["eps"])), "tasks": tasks, "runs": runs})


def _run(suite: str, row: Mapping[str, str]) -> Mapping[str, str]:
    if not {"encoder", "task"} <= row.keys() <= {"encoder", "task", "surrogate"}:
        raise UsageError(f"suite {suite!r}: a row of runs has encoder, task and perhaps surrogate, not {sorted(row)}")
    return row


def _plan(suite: str, task: str, row: Mapping[str, Any]) -> TaskPlan:
    if surplus := sorted(row.keys() - {f.name for f in fields(TaskPlan)}):
        raise UsageError(f"suite {suite!r}, task {task!r}: unknown keys {surplus}")
    return TaskPlan(**{**row, "datasets": tuple(row["datasets"]), "optional": tuple(row.get("optional", ()))})


def _merged(name: str) -> dict[str, Any]:
    """The suite's table on top of that of its ``base``, task by task."""
    raw = tomllib.loads(resources.files("bench.config.suites").joinpath(f"{name}.toml").read_text())
    if (base := raw.pop("base", None)) is None:
        return raw
    merged = _merged(base)
    tasks = {task: {**row, **raw.get("tasks", {}).get(task, {})} for task, row in merged["tasks"].items()}
    return {**merged, **raw, "tasks": {**raw.get("tasks", {}), **tasks}}


def preset(name: str) -> Preset:
    """An attack schedule by name: built in, or from a plugin in the entry point group "bench.attacks".

    Raises:
        UsageError: an unknown name.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name in registry.plugins("bench.attacks"):
        found = registry.resolve("bench.attacks", name)
        if not isinstance(found, Preset):
            raise UsageError(f"the plugin attack {name!r} is a {type(found).__name__}, not an attacks.presets.Preset")
        return found
    raise registry.unknown("attack", name, [*PRESETS, *registry.plugins("bench.attacks"), "none"])


def parse_eps(text: str | float | Sequence[str | float], norm: str = "linf") -> tuple[float, ...]:
    """Radii, ascending: "2,4", "4/255", 4 or [2, 4] in 1/255 for "linf", "0.5" in plain units for "l2".

    Raises:
        UsageError: not a number, not above 0, or such that it must be a slip.
    """
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    radii = [_radius(part, norm) for part in ([parts] if isinstance(parts, int | float) else parts)]
    if not radii:
        raise UsageError(f"no eps given; write it {_EXAMPLES[norm]}")
    return tuple(sorted(set(radii)))


_EXAMPLES = {"linf": "in 1/255, for example --eps 2,4 or 4/255", "l2": "in plain l2 units, for example --eps 0.5"}


def _radius(part: str | float, norm: str) -> float:
    bare = part.removesuffix("/255") if isinstance(part, str) and norm == "linf" else part
    try:
        value = float(bare)
    except ValueError:
        raise UsageError(f"eps {part!r} is not a number; write it {_EXAMPLES[norm]}") from None
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"eps must be above 0 (the clean score is always reported), got {part!r}")
    if norm == "linf" and value < 0.1:
        raise UsageError(f"eps is counted in 1/255: {part!r} means {value}/255; did you mean {value * 255:.3g}?")
    if norm == "linf" and value > 255:
        raise UsageError(f"eps {part!r} exceeds the pixel range; it is counted in 1/255")
    return value


@dataclass(frozen=True)
class RunConfig:
    """One run, resolved: one encoder, one task, one dataset. Radii as in `Suite.eps`."""

    suite: str
    encoder: str
    task: str
    dataset: str
    samples: int
    attack: str
    norm: str
    eps: tuple[float, ...]
    seed: int
    limit: int | None = None
    surrogate: str | None = None
    batch_size: int | None = None
    device: str = "auto"
    output: Path = DEFAULT_OUTPUT
    data_root: Path | None = None
    save_adversarial: bool = False
    protocol: str = "strict"
    precision: str = "float32"  # of the search for adversarial images
    compiled: bool = False  # whether torch.compile has the models' blocks; rounding may then turn a close verdict
    tower: str = "encoder"  # or "native": the vision-language model keeps the tower it came with
    arch: str | None = None  # open_clip architecture of an encoder given as a path
    vlm: str | None = None  # folder or hub id of the vision-language model; the suite's by default
    force: bool = False  # begin anew beside a run that cannot be resumed
    place: Place | None = None  # where the dataset lies, if the suite does not know it

    def as_json(self) -> dict[str, Any]:
        """Every field as JSON data, for the record."""

        def plain(value: Any) -> Any:
            if isinstance(value, Place):
                return {"name": value.name, "row": dict(value.row), "root": str(value.root), "where": value.where}
            return str(value) if isinstance(value, Path) else value

        return {one.name: plain(getattr(self, one.name)) for one in fields(self)}

    @property
    def n_samples(self) -> int:
        """Samples to score."""
        return self.samples if self.limit is None else min(self.limit, self.samples)

    @property
    def directory(self) -> Path:
        """Where the records lie; runs that differ in anything that moves a score lie apart."""
        attack = self.attack + (f"-from-{self.surrogate}" if self.surrogate else "")
        radii = "+".join(f"{e:g}" for e in self.eps) if self.attack != "none" else "clean"
        dataset = self.dataset if self.place is None else f"{self.dataset}-{_digest(self.place.where)}"
        name = [_file_name(self.encoder), dataset, attack, self.norm, radii, f"seed{self.seed}"]
        if self.protocol != DEFAULT_PROTOCOL:
            name.append(self.protocol)
        if self.precision != "float32":
            name.append(self.precision)
        if self.compiled:
            name.append("compiled")
        if self.tower != "encoder":
            name.append(self.tower)
        name += [_file_name(other) for other in (self.vlm, self.arch) if other is not None]
        if self.limit is not None:
            name.append(f"limit{self.limit}")
        return self.output / self.suite / self.task / "_".join(name)


def _file_name(encoder: str) -> str:
    """An encoder's name as part of a directory's: a path is told from others of the same stem by a digest."""
    if "/" not in encoder:
        return Path(encoder).stem
    return f"{Path(encoder).stem}-{_digest(str(Path(encoder).resolve()))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def resolve(
    *,
    encoder: str | Sequence[str],
    task: str | Sequence[str],
    suite: str = "mini",
    eps: str | float | Sequence[str | float] | None = None,
    norm: str | None = None,
    attack: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    surrogate: str | Sequence[str] | None = None,
    dataset: str | Sequence[str] | None = None,
    protocol: str = DEFAULT_PROTOCOL,
    precision: str = "float32",
    tower: str = "encoder",
    data_root: Path | None = None,
    **rest: Any,
) -> list[RunConfig]:
    """All runs that a request stands for, encoder by encoder.

    Raises:
        UsageError: an unknown name (the nearest known one is suggested), a bad radius or limit.
    """
    from bench.models.encoders import catalogue

    chosen = load_suite(suite)
    tasks = list(chosen.tasks) if task == "all" else _listed(task)
    for name in tasks:
        if name not in registry.names("bench.tasks"):
            raise registry.unknown("task", name, [*registry.names("bench.tasks"), "all"])
        if name not in chosen.tasks and name not in registry.plugins("bench.tasks"):
            raise UsageError(f"suite {suite!r} has no datasets for task {name!r}")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    ball = chosen.norm if norm is None else norm
    for kind, value, known in (
        ("protocol", protocol, tuple(PROTOCOLS)), ("precision", precision, PRECISIONS), ("tower", tower, TOWERS),
        ("norm", ball, NORMS),
    ):  # fmt: skip
        if value not in known:
            raise registry.unknown(kind, value, known)
    if eps is None and ball != chosen.norm:
        raise UsageError(f"the radii of suite {suite!r} are for {chosen.norm}; give --eps, {_EXAMPLES[ball]}")
    radii = chosen.eps if eps is None else parse_eps(eps, ball)
    aliases = catalogue.aliases()
    sources = [None] if surrogate is None else [aliases.get(source, source) for source in _listed(surrogate)]
    configs = []
    for one in _listed(encoder):
        for name in tasks:
            plan = chosen.tasks.get(name) or _plugin_plan(name)
            used = attack or plan.attack
            if used != "none":
                preset(used)
            if used == TRANSFER and surrogate is None:
                raise UsageError("attack 'transfer' needs --surrogate, the encoder on which the images are made")
            for (each, place), source in product(_chosen_datasets(plan, name, dataset, data_root), sources):
                row = chosen.datasets.get(each, {}) if place is None else place.row
                configs.append(
                    RunConfig(
                        suite, aliases.get(one, one), name, each, row.get("samples", plan.samples), used, ball,
                        radii, chosen.seed if seed is None else seed, limit, source,
                        protocol=protocol, precision=precision, tower=tower, place=place,
                        data_root=data_root if place is None else place.root, **rest,
                    )
                )  # fmt: skip
    if not configs:
        raise UsageError(
            f"no task asked for ({', '.join(tasks)}) has dataset {dataset!r}, or its format does not suit them; see "
            f"`bench list datasets --suite {suite}`"
        )
    return configs


def resolve_all(suite: str, **rest: Any) -> list[RunConfig]:
    """All runs behind a suite's tables, as its `runs` name them; ``rest`` as of `resolve`.

    Raises:
        UsageError: there is no such suite, or it names no runs; and as of `resolve`.
    """
    if not (rows := load_suite(suite).runs):
        raise UsageError(f"suite {suite!r} does not say which runs its tables hold; name encoders and tasks")
    return [config for row in rows for config in resolve(suite=suite, **{**rest, **row})]


def _chosen_datasets(
    plan: TaskPlan, task: str, asked: str | Sequence[str] | None, data_root: Path | None
) -> list[tuple[str, Place | None]]:
    """The plan's datasets, or those that were asked for: known by name, or found where they lie."""
    if asked is None:
        return [(name, None) for name in plan.datasets]
    names = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else asked
    places = parse_all([one for one in names if is_spec(one)], data_root, plan.defaults)
    known = dict.fromkeys(one for one in names if one in (*plan.datasets, *plan.optional))
    return [*((one, None) for one in known), *((place.name, place) for place in places if place.suits(task))]


def _plugin_plan(task: str) -> TaskPlan:
    """What a third-party task asks for itself, as its class attribute ``plan``."""
    plan = getattr(registry.resolve("bench.tasks", task), "plan", None)
    if not isinstance(plan, TaskPlan):
        raise UsageError(f"the plugin task {task!r} needs a class attribute plan = bench.config.TaskPlan(...)")
    return plan


def _listed(value: str | Sequence[str]) -> list[str]:
    if isinstance(value, str) and "/" in value and Path(value).exists():
        return [value]  # a path may hold spaces and commas
    names = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    if not names:
        raise UsageError("no name given")
    return list(dict.fromkeys(names))
