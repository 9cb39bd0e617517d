"""Names to things: built-ins by "module:attribute", third parties by entry points, and "did you mean"."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

from bench.errors import UsageError

T = TypeVar("T")

TASKS = {
    "zeroshot": "tasks.zeroshot:ZeroShot",
    "captioning": "tasks.captioning:Captioning",
    "vqa": "tasks.vqa:VQA",
    "stealth": "tasks.stealth:Stealth",
    "pope": "tasks.pope:Pope",
    "scienceqa": "tasks.scienceqa:ScienceQA",
    "keywords": "tasks.targets:Keywords",
    "target-text": "tasks.targets:TargetText",
    "target-caption": "tasks.targets:TargetCaption",
}
JUDGES = {"words": "tasks.judges:words", "text": "bench.models.judges:text"}
OBJECTIVES = {
    "fare": "bench.train.objectives:fare",
    "tecoa": "bench.train.objectives:tecoa",
    "cosine": "bench.train.objectives:cosine",
    "fare-patches": "bench.train.objectives:fare_patches",
}
VICTIMS = {
    "llava": "bench.models.victims.llava.family:LlavaFamily",
    "openflamingo": "bench.models.victims.openflamingo.family:OpenFlamingoFamily",
    "openai": "bench.models.victims.endpoint.family:EndpointFamily",
    "transformers": "bench.models.victims.any_model.family:AnyModelFamily",
}
DEFENCES = {
    "identity": "bench.models.defences.images:Identity",
    "jpeg": "bench.models.defences.images:Jpeg",
    "bit-depth": "bench.models.defences.images:BitDepth",
    "resize-pad": "bench.models.defences.images:ResizePad",
    "noise": "bench.models.defences.images:Noise",
    "smooth": "bench.models.defences.smoothing:Smooth",
    "ttc": "bench.models.defences.ttc:TTC",
    "clipure": "bench.models.defences.clipure:CLIPure",
    "r-tpt": "bench.models.defences.rtpt:RTPT",
}
READERS = {
    "vqa": "bench.data.questions:VQA",
    "karpathy": "bench.data.captions:KARPATHY",
    "webdataset": "bench.data.shards:WEBDATASET",
    "imagefolder": "bench.data.folders:IMAGEFOLDER",
    "pope": "bench.data.pope:POPE",
    "scienceqa": "bench.data.scienceqa:SCIENCEQA",
    "table": "bench.data.columns:TABLE",
    "parquet": "bench.data.columns:TABLE",
    "hf": "bench.data.columns:HUB",
    "tsv": "bench.data.columns:TSV",
    "pairs": "bench.data.pairs:PAIRS",
    "mini": "bench.mini.embedded:READER",
}
EXPORTERS = {"mini": "bench.mini.export:export_mini"}
ATTACK_KINDS = {
    "apgd": "attacks.kinds:APGD",
    "apgd-confirm": "attacks.kinds:APGD_CONFIRM",
    "pgd": "attacks.kinds:PGD",
    "fab-t": "attacks.kinds:FAB_T",
    "square": "attacks.kinds:SQUARE",
    "brought": "attacks.kinds:BROUGHT",
    "squares": "attacks.squares:SQUARES",
    "noise": "attacks.kinds:NOISE",
    "crops": "attacks.crops:CROPS",
    "foa": "attacks.crops:FOA",
    "common-weakness": "attacks.weakness:COMMON_WEAKNESS",
    "queries": "attacks.queries:QUERY",
}
ENGINES = {
    "processes": "bench.running.engines.processes:Processes",
    "inline": "bench.running.engines.inline:Inline",
    "ray": "bench.running.engines.ray:Ray",
    "slurm": "bench.running.engines.slurm:Slurm",
}
SINKS = {
    "tensorboard": "bench.sinks.tensorboard:TensorBoard",
    "mlflow": "bench.sinks.mlflow:MLflow",
    "wandb": "bench.sinks.wandb:WandB",
}
CLAIMS = {"mini": "bench.mini.claims:claims_block"}
LAYOUTS = {
    "flat": "bench.tables.layouts:flat",
    "robustness": "bench.tables.layouts:robustness",
    "zeroshot": "bench.tables.layouts:zero_shot",
    "targeted": "bench.tables.layouts:targeted",
    "transfer": "bench.tables.layouts:transfer",
    "brought": "bench.tables.layouts:brought",
    "defences": "bench.tables.layouts:defences",
    "models": "bench.tables.models:models",
    "surrogates": "bench.tables.surrogates:surrogates",
    "targets": "bench.tables.surrogates:targets",
    "pope": "bench.tables.answers:yes_no",
    "scienceqa": "bench.tables.answers:categories",
}
_BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "bench.tasks": TASKS,
    "bench.judges": JUDGES,
    "bench.encoders": {},
    "bench.victims": VICTIMS,
    "bench.defences": DEFENCES,
    "bench.attacks": {},
    "bench.objectives": OBJECTIVES,
    "bench.attack_kinds": ATTACK_KINDS,
    "bench.engines": ENGINES,
    "bench.sinks": SINKS,
    "bench.claims": CLAIMS,
    "bench.layouts": LAYOUTS,
    "bench.readers": READERS,
    "bench.exporters": EXPORTERS,
}


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points of third-party packages in one of the groups above, such as "bench.encoders"."""
    return {point.name: point for point in entry_points(group=group)}


def groups() -> list[str]:
    """All groups, such as "bench.encoders"."""
    return list(_BUILT_IN)


def names(group: str) -> list[str]:
    """All names of a group, built-in ones first."""
    built_in = _BUILT_IN[group]
    return [*built_in, *sorted(plugins(group).keys() - built_in.keys())]


def is_built_in(group: str, name: str) -> bool:
    """Whether a name stands for something of this package."""
    return name in _BUILT_IN[group]


def resolve(group: str, name: str) -> object:
    """Import what a name stands for.

    Raises:
        UsageError: an unknown name, with the nearest known one; a plugin that cannot be imported.
    """
    if name in _BUILT_IN[group]:
        module, _, attribute = _BUILT_IN[group][name].partition(":")
        return getattr(import_module(module), attribute)
    if name not in plugins(group):
        raise unknown(group.removeprefix("bench.").removesuffix("s"), name, names(group))
    try:
        return plugins(group)[name].load()
    except (Exception, SystemExit) as error:  # a script without a guard around its main function exits
        raise broken(group, name, f"it cannot be imported: {error}") from error


def made(group: str, name: str, kind: type, *arguments: object, **options: object) -> object:
    """Call the class or function that a name stands for; what comes out must be of a kind.

    Raises:
        UsageError: as for `resolve`; a plugin that fails or gives something else.
    """
    factory = resolve(group, name)
    try:
        thing = cast(Any, factory)(*arguments, **options)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        if name not in plugins(group):
            raise
        raise broken(group, name, f"calling it fails with {type(error).__name__}: {error}") from error
    if not examined(group, name, lambda: isinstance(thing, kind)):  # of a protocol that asks for attributes
        raise broken(group, name, f"it gives a {type(thing).__name__}, not what {kind.__name__} asks for")
    return thing


def examined(group: str, name: str, look: Callable[[], T]) -> T:
    """What a look at the thing behind a name finds: a third party's may raise at any attribute that is asked of it.

    Raises:
        UsageError: as for `resolve`; a plugin that raises.
    """
    try:
        return look()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        if name not in plugins(group):
            raise
        raise broken(group, name, f"a look at it fails with {type(error).__name__}: {error}") from error


def attribute(group: str, name: str, asked: str) -> Any:
    """An attribute of what a name stands for, None if it has none; errors as of `examined`."""
    thing = resolve(group, name)
    return examined(group, name, lambda: getattr(thing, asked, None))


def extra(module: str, name: str, asked: str) -> ModuleType:
    """A package that is not among those that everybody has.

    Args:
        module: what of it is imported.
        name: of the extra that brings it.
        asked: what needs it, such as "--on ray".

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(f"{asked} needs the package {package}: pip install 'robust-vlm-bench[{name}]'") from error


def options(query: str, where: str) -> dict[str, str]:
    """What follows the "?" of a name: OPTION=VALUE, several joined by "&".

    >>> options("time=120&partition=gpu", "--on slurm")
    {'time': '120', 'partition': 'gpu'}

    Raises:
        UsageError: it is no such list, or has an option twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        pairs = [("", "")]
    if not all(name for name, _ in pairs):
        raise UsageError(f'{where}: write OPTION=VALUE behind the "?", several joined by "&", not {query!r}')
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UsageError(f"{where} names an option twice in {query!r}; leave one of them out")
    return found


def broken(group: str, name: str, reason: str) -> UsageError:
    """The error for a plugin that does not do what it should: says whose it is."""
    point = plugins(group).get(name)
    whose = f"of {point.dist.name}" if point is not None and point.dist is not None else "of this package"
    value = point.value if point is not None else _BUILT_IN[group].get(name, "")
    return UsageError(f"the plugin {name!r} ({group} {whose}, {value}) is broken: {reason}; correct or uninstall it")


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known: suggests the nearest, lists all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")
