"""Suites: what is run, as data. Those that ship with the package, and a user's own file. Never imports torch.

A suite's file has the fields of `Suite` as keys, ``base`` for a suite to build on, and a table for each task
(``[tasks.NAME]``, the fields of `TaskPlan`), dataset (``[datasets.NAME]``, see `bench.data.readers`), attack schedule
(``[attacks.NAME]``, the fields of `attacks.presets.Preset`) and family of victims (``[victim.FAMILY]``, its settings)
of its own.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from attacks.presets import PRESETS, AttackStep, Preset
from bench import registry
from bench.config.radii import NORMS, parse_eps
from bench.data.readers import reader_of
from bench.data.settings import check
from bench.errors import UsageError

ENDING = ".toml"
_TABLES = ("tasks", "datasets", "attacks", "victim")  # what a suite has on top of its base, row by row
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# of runs, in a suite's `runs`
CHOICES = ("encoder", "task", "dataset", "surrogate", "ensemble", "surrogate_vlm", "attack", "eps")
ROW_KEYS = (*CHOICES, "vlm", "shots")  # of a row of `runs`


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
        attacks: attack schedules of the suite's own.
        victim: settings of victims by family, for all victims of that family; see `bench list victims --json`.
        runs: what lies behind the suite's tables: rows with encoder, task and, where wanted, vlm, shots, dataset,
            surrogate, ensemble, surrogate_vlm, attack and eps.
        folder: where a user's own file lies: its datasets lie there unless a data root is given.
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
    attacks: Mapping[str, Preset] = field(default_factory=dict)
    victim: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    runs: tuple[Mapping[str, str], ...] = ()
    folder: Path | None = None


def suite_names() -> list[str]:
    """The suites that ship with the package."""
    found = resources.files("bench.config.suites").iterdir()
    return sorted(entry.name.removesuffix(ENDING) for entry in found if entry.name.endswith(ENDING))


def load_suite(name: str) -> Suite:
    """Read a suite by name, or by the path of a user's own ``.toml`` file.

    Raises:
        UsageError: there is no such suite, or its file holds what it should not; the message names file and key.
    """
    if is_file(name):
        return _own(Path(name))
    if name not in suite_names():
        raise registry.unknown("suite", name, [*suite_names(), f"or a file of your own: FILE{ENDING}"])
    return _shipped(name)


def is_file(name: str) -> bool:
    """Whether this names a user's own file, not a suite of the package."""
    return name.endswith(ENDING)


def preset(name: str, suite: Suite | None = None) -> Preset:
    """An attack schedule by name: built in, of the suite, or from a plugin in the entry point group "bench.attacks".

    Raises:
        UsageError: an unknown name.
    """
    own = suite.attacks if suite is not None else {}
    if name in PRESETS or name in own:
        return PRESETS[name] if name in PRESETS else own[name]
    if name in registry.plugins("bench.attacks"):
        found = registry.resolve("bench.attacks", name)
        if not isinstance(found, Preset):
            raise UsageError(f"the plugin attack {name!r} is a {type(found).__name__}, not an attacks.presets.Preset")
        return found
    raise registry.unknown("attack", name, [*PRESETS, *own, *registry.plugins("bench.attacks"), "none"])


# ---- Files -----------------------------------------------------------------------------------------------------------


@cache
def _shipped(name: str) -> Suite:
    return _suite(_shipped_table(name), name, f"suite {name!r}", None)


def _own(path: Path) -> Suite:
    raw = _merged(path, ())
    name = raw.pop("name", path.stem)
    if not isinstance(name, str):
        raise UsageError(f"{path}: name must be text, not {name!r}")
    _check_name(name, f"{path}: name")
    if name in suite_names():
        raise UsageError(f"{path}: {name!r} is the name of a suite that ships with bench; give it another: name = ...")
    return _suite(raw, name, str(path), path.parent)


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's table on top of that of its ``base``; ``above`` are the files that build on it."""
    raw = _read(path)
    if (base := raw.pop("base", None)) is None:
        return raw
    if not isinstance(base, str):
        raise UsageError(f"{path}: base is the name of a suite or a file, not {base!r}")
    if not is_file(base):
        if base not in suite_names():
            raise UsageError(f"{path}: base: {registry.unknown('suite', base, suite_names())}")
        return _on_top(raw, _shipped_table(base), str(path))
    if (below := (path.parent / base).resolve()) in (chain := (*above, path.resolve())):
        raise UsageError(f"{path}: base {base!r} leads back to itself: {' -> '.join(map(str, (*chain, below)))}")
    lower = _merged(path.parent / base, chain)
    lower.pop("name", None)
    return _on_top(raw, lower, str(path))


def _shipped_table(name: str) -> dict[str, Any]:
    raw = tomllib.loads(resources.files("bench.config.suites").joinpath(name + ENDING).read_text(encoding="utf-8"))
    base = raw.pop("base", None)
    return raw if base is None else _on_top(raw, _shipped_table(base), f"suite {name!r}")


def _on_top(raw: Mapping[str, Any], base: Mapping[str, Any], source: str) -> dict[str, Any]:
    """One table on top of another: row by row, a task's row and a family's settings key by key."""
    if raw.get("norm", base.get("norm")) != base.get("norm") and "eps" not in raw:
        raise UsageError(f"{source}: norm is another than that of the base; give eps, too")
    merged = {**base, **raw}
    for table in _TABLES:
        upper, lower = _table(raw, table, source), _table(base, table, source)
        merged[table] = {**lower, **upper}
    for table in ("tasks", "victim"):
        for name, row in _table(raw, table, source).items():
            merged[table][name] = {**base.get(table, {}).get(name, {}), **_row(row, f"{source}, [{table}.{name}]")}
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}; shipped suites: {', '.join(suite_names())}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


# ---- From TOML's types to ours ---------------------------------------------------------------------------------------


def _suite(raw: Mapping[str, Any], name: str, source: str, folder: Path | None) -> Suite:
    _check_keys(raw, {f.name for f in fields(Suite)} - {"name", "folder"}, source)
    made = {
        **raw,
        "name": name,
        "tasks": {task: _plan(row, f"{source}, [tasks.{task}]") for task, row in _table(raw, "tasks", source).items()},
        "attacks": {
            attack: _attack(attack, row, f"{source}, [attacks.{attack}]")
            for attack, row in _table(raw, "attacks", source).items()
        },
        "datasets": {
            dataset: _row(row, f"{source}, [datasets.{dataset}]")
            for dataset, row in _table(raw, "datasets", source).items()
        },
        "victim": {
            family: _settings(row, f"{source}, [victim.{family}]")
            for family, row in _table(raw, "victim", source).items()
        },
        "runs": tuple(_run(row, f"{source}, runs[{n}]") for n, row in enumerate(_list(raw.get("runs", ()), source))),
    }
    suite: Suite = _converted({**made, "folder": folder}, Suite, source)
    _check_values(suite, source)
    return replace(suite, eps=_radii(suite, source))


def _radii(suite: Suite, source: str) -> tuple[float, ...]:
    try:
        return parse_eps(suite.eps, suite.norm)
    except UsageError as error:
        raise UsageError(f"{source}: eps: {error}") from None


def _check_values(suite: Suite, source: str) -> None:
    """What types do not say."""
    from bench.models.encoders import catalogue

    if suite.norm not in NORMS:
        raise UsageError(f"{source}: {registry.unknown('norm', suite.norm, NORMS)}")
    if not 0 <= suite.seed < 2**63:
        raise UsageError(f"{source}: seed must be a number from 0, not {suite.seed}")
    for name, row in suite.datasets.items() if suite.folder is not None else ():
        _check_dataset(name, row, f"{source}, [datasets.{name}]")
    if not catalogue.rows(suite.encoders):
        raise UsageError(f"{source}: encoders: the catalogue has no encoders called {suite.encoders!r}")
    for family in suite.victim:
        if family not in registry.names("bench.victims"):
            known = registry.names("bench.victims")
            raise UsageError(f"{source}, [victim.{family}]: {registry.unknown('family of victims', family, known)}")
    attacks = {"none", *PRESETS, *suite.attacks, *registry.plugins("bench.attacks")}
    for task, plan in suite.tasks.items():
        if task not in registry.names("bench.tasks"):
            raise UsageError(f"{source}: {registry.unknown('task', task, registry.names('bench.tasks'))}")
        if plan.samples < 1:
            raise UsageError(f"{source}, [tasks.{task}]: samples must be at least 1, not {plan.samples}")
        if plan.attack not in attacks:
            raise UsageError(f"{source}, [tasks.{task}]: {registry.unknown('attack', plan.attack, sorted(attacks))}")
        for dataset in (*plan.datasets, *plan.optional):
            if dataset not in suite.datasets:
                unknown = registry.unknown("dataset", dataset, suite.datasets)
                raise UsageError(f"{source}, [tasks.{task}]: {unknown}; or describe it in [datasets.{dataset}]")


def _check_dataset(name: str, row: Mapping[str, Any], source: str) -> None:
    _check_name(name, source)
    if not isinstance(row.get("format"), str):
        raise UsageError(f"{source}: say format = ..., e.g. 'vqa' or 'imagefolder'")
    check({key: value for key, value in row.items() if key != "format"}, reader_of(source, row).settings, source)


def _check_name(name: str, source: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{source}: a name holds letters, digits, '.', '_' and '-' only, not {name!r}")


def _plan(row: Any, source: str) -> TaskPlan:
    plan: TaskPlan = _converted(_row(row, source), TaskPlan, source)
    return plan


def _attack(name: str, row: Any, source: str) -> Preset:
    _check_name(name, source)
    if name in PRESETS or name == "none":
        raise UsageError(f"{source}: {name!r} is the name of an attack that ships with bench; choose another")
    for n, step in enumerate(_list(_row(row, source).get("steps", ()), source)):
        _check_keys(_row(step, f"{source}, steps[{n}]"), {f.name for f in fields(AttackStep)}, f"{source}, steps[{n}]")
    schedule: Preset = _converted(row, Preset, source)
    names = [step.name for step in schedule.steps]
    if not names:
        raise UsageError(f"{source}: steps is empty")
    if len(set(names)) < len(names):
        raise UsageError(f"{source}: two steps have the same name: {', '.join(names)}")
    for step in schedule.steps:
        if step.steps < 1 or not 0 <= step.first_step < float("inf"):
            raise UsageError(f"{source}: step {step.name!r}: steps must be at least 1, first_step at least 0")
    return schedule


def _run(row: Any, source: str) -> Mapping[str, str]:
    if not {"encoder", "task"} <= _row(row, source).keys() <= set(ROW_KEYS):
        raise UsageError(f"{source}: has encoder, task and perhaps {', '.join(ROW_KEYS[2:])}, not {sorted(row)}")
    if wrong := [key for key, value in row.items() if not isinstance(value, str)]:
        raise UsageError(f"{source}: {wrong[0]} must be text, not {row[wrong[0]]!r}")
    return dict(row)


def _settings(row: Any, source: str) -> Mapping[str, str]:
    """A family's settings; numbers as text."""
    for key, value in _row(row, source).items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"{source}: {key} must be text or a number, not {value!r}")
    return {key: str(value) for key, value in row.items()}


def _table(raw: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    return _row(raw.get(key, {}), f"{source}, {key}")


def _row(value: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{source} must be a table, not {value!r}")
    return value


def _list(value: Any, source: str) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{source}: {value!r} must be a list of tables")
    return value


def _check_keys(row: Mapping[str, Any], known: Iterable[str], source: str) -> None:
    known = sorted(known)
    for key in row:
        if key not in known:
            raise UsageError(f"{source}: {registry.unknown('key', key, known)}")


def _converted(row: Mapping[str, Any], kind: type[Any], source: str) -> Any:
    """The row as a dataclass, its values checked against the types of the fields."""
    _check_keys(row, {f.name for f in fields(kind)}, source)
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        problem, _, key = str(error).partition(" - at `$.")
        where = f"{source}: {key.rstrip('`')}" if key else source
        raise UsageError(f"{where}: {problem[:1].lower()}{problem[1:]}") from None
