"""A request: everything a user can ask for, the same from the command line, the library and a finished run's header.

An option is described here and nowhere else: the command line's help and `bench.run`'s come from these docstrings.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from inspect import getdoc
from pathlib import Path
from typing import Any, Self

from bench import registry
from bench.data.specs import is_spec
from bench.errors import UsageError
from bench.records import RunHeader

DEFAULT_OUTPUT = Path("results/runs")
DEFAULT_PROTOCOL = "strict"
ADAPTIVE = "adaptive-"  # before the name of the attack that a defended victim is attacked with
NATIVE = "native"  # the tower, and the name of the encoder where the vision-language model keeps its own
NO_ATTACK = "none"
DEFAULT_ENGINE = "processes"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What holds alike for every run of a request.

    Attributes:
        suite: Which models, data and sample counts: a suite's name, or a .toml file of your own. Default: mini.
        limit: Only the first N samples; marks the run as partial.
        batch_size: Samples at once; never changes a result. Default: as many as memory holds.
        device: auto, cpu, cuda, cuda:1, ... Default: auto.
        output: Where run directories go. Default: results/runs.
        data_root: Folder under which the datasets' files lie. Default: those embedded in the package.
        save_adversarial: Keep the worst image of each sample and radius.
        images: Folder of adversarial images made elsewhere: one PNG, or float32 safetensors file, per sample, named
            after its id.
        clean: Folder of the clean images, named alike. Default: the dataset's own, as the victim takes them.
        protocol: strict, or paper for the choices of the paper's released code. Default: strict.
        compiled: torch.compile the models' blocks: for long runs on a GPU. Rounding may change a close result, hence
            such runs lie apart.
        tower: encoder, or native for the image tower that the vision-language model came with. Default: encoder.
        ensemble: Make each image on all encoders of --surrogate at once: mean for the mean of their losses, or weights
            in the order of the names, such as 2,1,1. Default: each by itself.
        arch: What an encoder given as a path holds: ViT-L-14-quickgelu; or ViT-B-32,TAG with the weights it began from.
        repeats: Ask an endpoint so many more times about each clean image: the floor of disagreement. Default: 0.
        rpm: Requests a minute to an endpoint. Default: no limit.
        concurrency: Requests at once to an endpoint. Default: 4.
        max_cost: Stop before an endpoint has cost this command more, in the currency of --price.
        price: Of a million tokens of an endpoint, in and out, such as 2.5,10.
        defence: Around the victim, comma-separated in the order in which images meet them, such as jpeg?quality=50,ttc
            (`bench list defences`). The attack becomes the adaptive protocol, which knows the defence.
        judge: Compares what is said with what was wanted, in the tasks keywords, target-text and target-caption: words,
            text?encoders=A,B, or a plugin's (`bench list judges`). Default: words for keywords, else text.
        force: Begin anew beside a run that cannot be resumed.
        jobs: Runs at once. Default: one per core on the CPU; on accelerators as many as their memory holds.
        shards: Split each run into N shards of samples, which can be carried out at once; never changes a result.
            Default: 1, but one per core for a single run of small models on the CPU.
        on: Where runs are carried out: processes, inline, ray[:ADDRESS], slurm; then "?" and the engine's options, such
            as slurm?partition=gpu&time=120. Default: processes.
        log_to: Send the scores there, too, comma-separated: tensorboard:DIR, mlflow:DIR or mlflow:URL?experiment=NAME,
            wandb:PROJECT?mode=offline.
    """

    suite: str = "mini"
    limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    output: Path = DEFAULT_OUTPUT
    data_root: Path | None = None
    save_adversarial: bool = False
    images: Path | None = None
    clean: Path | None = None
    protocol: str = DEFAULT_PROTOCOL
    compiled: bool = False
    tower: str = "encoder"
    ensemble: str | None = None
    arch: str | None = None
    repeats: int | None = None
    rpm: int | None = None
    concurrency: int | None = None
    max_cost: float | None = None
    price: str | None = None
    defence: tuple[str, ...] = ()
    judge: str | None = None
    force: bool = False
    jobs: int | None = None
    shards: int | None = None
    on: str = DEFAULT_ENGINE
    log_to: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Request(Options):
    """Everything a user can ask for.

    Attributes:
        encoder: Name, alias or checkpoint path; several comma-separated. Not needed with the native tower, nor with
            --vlm.
        task: Task name; several comma-separated; 'all' for every task of the suite.
        dataset: Only these datasets, comma-separated; or your own by where they lie, such as vqa:FOLDER.
        eps: Radii in 1/255, e.g. 2,4 or 4/255; in plain units of pixels in [0, 1] for l2. Default: the suite's.
        norm: linf, or l2. Default: the suite's.
        attack: Attack preset, or 'none'; of images made elsewhere, what their attack is called in tables. Default: the
            suite's choice for the task; 'brought' for images made elsewhere.
        seed: Of all random starts. Default: the suite's.
        vlm: Name (`bench list victims`), folder or hub id of the vision-language model, several comma-separated; with
            settings of its family as NAME?SETTING=VALUE&SETTING=VALUE. Default: the suite's. Without --encoder it keeps
            its own image tower.
        image_size: Pixels that the longer side of an image is resized to before it is attacked, for models of
            transformers that take images of any size. Default: images as they are.
        shots: Examples with their images before each question, for models that take some: 4, 8. Default: 0.
        surrogate: Make the images on this encoder and score them on the other (transfer); several give a matrix, or
            with --ensemble one ensemble.
        surrogate_vlm: Make the images on this vision-language model, written as --vlm, and score them on the other;
            several give a matrix, in which a model's own images are those of the plain attack.
        radii_order: ascending, descending, which spares samples that a larger radius left as they were, or adaptive,
            which chooses between them. Default: adaptive, of captions ascending; one radius, images made elsewhere and
            --protocol paper have no order.
        precision: Of the attack's search: float32, bf16 or fp16. Default: float32; under the paper's protocol fp16 in
            the first rounds of the ensembles on vision-language models, as there.
    """

    encoder: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    eps: tuple[str | float, ...] = ()
    norm: str | None = None
    attack: str | None = None
    seed: int | None = None
    vlm: tuple[str, ...] = ()
    image_size: int | None = None
    shots: int | None = None
    surrogate: tuple[str, ...] = ()
    surrogate_vlm: tuple[str, ...] = ()
    radii_order: str | None = None
    precision: str | None = None

    @classmethod
    def of(cls, **loose: Any) -> Self:
        """The request that loosely typed options stand for; None stands for an option's default.

        Names may come as comma-separated text or as lists, numbers as text or numpy scalars, paths as text.

        Raises:
            UsageError: an unknown option, or a value of the wrong kind; the message names the option.
        """
        known = {f.name for f in fields(cls)}
        for name in loose.keys() - known:
            raise registry.unknown("option", name, sorted(known))
        return cls(**{name: _READERS[name](value, flag(name)) for name, value in loose.items() if value is not None})

    def as_json(self) -> dict[str, Any]:
        """Every field as JSON data, null for a choice that is left to the suite; `of` reads it."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def request_of(header: RunHeader, **changes: Any) -> Request:
    """The request that makes a finished run again.

    Args:
        header: of the run. Headers of before requests were stored say the same in other fields.
        changes: options to ask for differently.

    Raises:
        UsageError: as of `Request.of`.
    """
    is_request = isinstance(header.config.get("encoder"), list)
    stored = header.config if is_request else _former(header.config)
    known = {f.name for f in fields(Request)}
    kept = {name: value for name, value in (_of_header(header) | stored).items() if name in known}
    return Request.of(**kept | changes)


def _of_header(header: RunHeader) -> dict[str, Any]:
    """What the header's own fields say of the request."""
    return {
        "suite": header.suite,
        "encoder": [header.encoder],
        "task": [header.task],
        "dataset": [header.data or header.dataset],
        "eps": header.radii or None,
        "norm": header.norm,
        "attack": header.attack.removesuffix(f"-from-{header.surrogate}").removeprefix(ADAPTIVE),
        "surrogate": list(header.surrogates) or None,
        "seed": header.seed,
        "limit": header.limit,
        "protocol": header.protocol_name,
        "radii_order": header.radii_order,
        "precision": header.precision,
        "compiled": header.compiled,
        "tower": header.tower,
        "defence": header.defence.split(",") if header.defence else None,
        "vlm": [header.model] if header.model else None,
    }


def _former(config: Mapping[str, Any]) -> dict[str, Any]:
    """What headers stored before they stored the request: the run's own settings, and where its dataset lay."""
    kept = dict(config)
    for name in ("encoder", "task", "dataset", "surrogate", "vlm"):
        if kept.get(name) is not None:
            kept[name] = [kept[name]]
    if isinstance(place := kept.pop("place", None), Mapping):
        kept["dataset"] = [place.get("where")]
    return kept


def flag(name: str) -> str:
    """How an option is written on the command line."""
    return "--compile" if name == "compiled" else "--" + name.replace("_", "-")


@cache
def about() -> dict[str, str]:
    """What each option is, in the words of the docstrings above."""
    texts: dict[str, str] = {}
    for kind in (Request, Options):
        section = (getdoc(kind) or "").partition("Attributes:\n")[2]
        found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
        texts |= {name: " ".join(text.split()) for name, text in found}
    return {f.name: texts[f.name] for f in fields(Request)}


def exists(path: str) -> bool:
    """Whether there is such a path; False for what cannot be one."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


# ---- From what users write to the types of the fields ----------------------------------------------------------------


def _names(value: Any, option: str) -> tuple[str, ...]:
    if isinstance(value, str) and "/" in value and exists(value):
        return (value,)  # a path may hold spaces and commas
    return _texts(value.replace(",", " ").split() if isinstance(value, str) else value, option)


def _datasets(value: Any, option: str) -> tuple[str, ...]:
    if isinstance(value, str) and is_spec(value) and exists(value.partition(":")[2].partition("?")[0]):
        return (value,)
    return _texts([part.strip() for part in value.split(",")] if isinstance(value, str) else value, option)


def _victims(value: Any, option: str) -> tuple[str, ...]:
    if not isinstance(value, str):
        return _texts(value, option)
    parts = [value] if exists(value.partition("?")[0]) else value.split(",")
    return _texts([part.strip() for part in parts], option)


def _sinks(value: Any, option: str) -> tuple[str, ...]:
    return _texts([part.strip() for part in value.split(",")] if isinstance(value, str) else value, option)


def _texts(value: Any, option: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_each(value, option)))


def _chain(value: Any, option: str) -> tuple[str, ...]:
    """Names in an order in which one may come twice."""
    return _each(value.replace(",", " ").split() if isinstance(value, str) else value, option)


def _each(value: Any, option: str) -> tuple[str, ...]:
    parts = [value] if isinstance(value, Path) or not isinstance(value, Iterable) else value
    names = tuple(_text(part, option) for part in parts)
    if not names:
        raise UsageError(f"{option}: no name given")
    return names


def _text(value: Any, option: str) -> str:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise UsageError(f"{option} takes a name, not {value!r}")
    return str(value)


def _path(value: Any, option: str) -> Path:
    return Path(_text(value, option))


def _radii(value: Any, option: str) -> tuple[str | float, ...]:
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if isinstance(value, str) and not parts:
        raise UsageError(f"{option} takes radii, such as 2,4, not {value!r}")
    return tuple(_radius(part, option) for part in (parts if isinstance(parts, Iterable) else [parts]))


def _radius(value: Any, option: str) -> str | float:
    try:
        return value if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{option} takes numbers, not {value!r}") from None


def _whole(value: Any, option: str, least: int = 0) -> int:
    try:
        number = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise UsageError(f"{option} takes a whole number, not {value!r}") from None
    if isinstance(value, bool) or number < least:
        raise UsageError(f"{option} must be at least {least}, got {value!r}")
    if number >= 2**63:
        raise UsageError(f"{option} must be below 2^63, got {str(value)[:40]}")
    return number


def _count(value: Any, option: str) -> int:
    return _whole(value, option, least=1)


def _amount(value: Any, option: str) -> float:
    try:
        amount = float(value)
    except (TypeError, ValueError, OverflowError):
        amount = -1.0
    if isinstance(value, bool) or not 0 < amount < float("inf"):
        raise UsageError(f"{option} takes a number above 0, not {value!r}")
    return amount


def _batch_size(value: Any, option: str) -> int | None:
    if isinstance(value, str) and not value.isdecimal():
        if value == "auto":
            return None
        raise UsageError(f"{option} takes 'auto' or a number from 1, got {value!r}")
    return _count(value, option)


def _switch(value: Any, option: str) -> bool:
    if value not in (True, False):
        raise UsageError(f"{option} is on or off (True or False), not {value!r}")
    return bool(value)


_BY_TYPE: Mapping[Any, Callable[[Any, str], Any]] = {
    tuple[str, ...]: _names,
    str: _text,
    str | None: _text,
    bool: _switch,
    Path: _path,
    Path | None: _path,
    int | None: _count,
    float | None: _amount,
}
_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    **{f.name: _BY_TYPE[f.type] for f in fields(Request) if f.type in _BY_TYPE},
    "dataset": _datasets,
    "defence": _chain,
    "eps": _radii,
    "vlm": _victims,
    "surrogate_vlm": _victims,
    "shots": _whole,
    "seed": _whole,
    "batch_size": _batch_size,
    "log_to": _sinks,
}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) or None if isinstance(value, tuple) else value
