"""The encoder catalogue: one row a checkpoint, data only (never imports torch)."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

PACKAGE = "package:"
FILES = ("catalogue.toml", "others.toml")
FORMATS = ("open_clip", "transformers")
ACTIVATIONS = ("gelu", "quick_gelu")
_TRAINING = {"method", "norm", "eps_255", "data"}
_TABLES = {"aliases", "preprocessing"}


@dataclass(frozen=True)
class PixelFacts:
    """The pixel pipeline that published weights were trained with; a ``resize_mode`` of None is not published."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str | None = None


@dataclass(frozen=True)
class EncoderRow:
    """One checkpoint: where its weights lie, and the published facts that they are checked against.

    Attributes:
        model: open_clip folder.
        hub: Hugging Face id; ``revision``, ``format``, ``pretrained`` and ``weights`` (a file name) say what of it.
        base: row whose image tower is replaced by the state dict ``visual``, or by the file that ``url`` names.
        sha256: of the weights file.
        training: method, norm, eps_255 and data of the robust training.
        verified: what of the row was tried, and what was not; empty where nothing is said of it.
        zero_shot: published average accuracy (%) over the 13 zero-shot datasets, by eps in 1/255; "0" is clean.
    """

    name: str
    model: str | None = None
    hub: str | None = None
    base: str | None = None
    visual: str | None = None
    url: str | None = None
    revision: str | None = None
    format: str = "open_clip"
    pretrained: str | None = None
    weights: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    activation: str | None = None
    image_size: int | None = None
    preprocessing: PixelFacts | None = None
    tokenizer: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    source: str = ""
    verified: str = ""
    zero_shot: Mapping[str, float] = field(default_factory=dict)
    about: str = ""

    @property
    def visual_path(self) -> Path:
        """The image tower's state dict of a row with a ``base``."""
        if self.visual is not None:
            return Path(resolve_path(self.visual))
        assert self.url is not None
        return weights_folder() / self.url.rsplit("/", 1)[1]


@cache
def _catalogue() -> dict[str, dict[str, Any]]:
    """The tables of both files; of a table that stands in both, the rows of both."""
    folder, whole = resources.files("bench.models.encoders"), dict[str, dict[str, Any]]()
    for name in FILES:
        for table, entries in tomllib.loads(folder.joinpath(name).read_text()).items():
            whole[table] = whole.get(table, {}) | entries
    return whole


def aliases() -> dict[str, str]:
    """Short names: alias -> row name."""
    return dict(_catalogue()["aliases"])


def rows(suite: str) -> dict[str, EncoderRow]:
    """The encoders of a suite by name."""
    return parse(_catalogue(), suite)


def parse(raw: Mapping[str, Any], suite: str) -> dict[str, EncoderRow]:
    """The rows of a suite in a catalogue that is read already.

    Raises:
        ValueError: a row with an unknown key, or one that contradicts itself; the message names it.
    """
    table = raw.get(suite, {}) if suite not in _TABLES else {}
    found = {name: _row(name, row, raw.get("preprocessing", {})) for name, row in table.items()}
    for row in found.values():
        if problem := _problem(row, found):
            raise ValueError(f"catalogue row {suite}.{row.name}: {problem}")
    return found


def _row(name: str, row: Mapping[str, Any], pipelines: Mapping[str, Any]) -> EncoderRow:
    if surplus := sorted(row.keys() - {f.name for f in fields(EncoderRow)} | (row.keys() & {"name"})):
        raise ValueError(f"catalogue row {name}: unknown keys {surplus}")
    pipeline = row.get("preprocessing")
    if pipeline is not None:
        if pipeline not in pipelines:
            raise ValueError(f"catalogue row {name}: no [preprocessing.{pipeline}]")
        facts = pipelines[pipeline]
        mean, std = tuple(facts["mean"]), tuple(facts["std"])
        row = {**row, "preprocessing": PixelFacts(mean, std, facts["interpolation"], facts.get("resize_mode"))}
    return EncoderRow(name, **row)


def _problem(row: EncoderRow, suite: Mapping[str, EncoderRow]) -> str | None:
    """What is wrong with a row."""
    if sum(place is not None for place in (row.model, row.hub, row.base)) != 1:
        return "needs exactly one of model, hub and base"
    if row.base is not None and (row.base not in suite or suite[row.base].base is not None):
        return f"its base {row.base!r} is no complete model of the suite"
    if (row.base is None) != (row.visual is None) and not (row.base and row.url):
        return "base goes with visual or url, and visual with base"
    if row.hub is None and (row.revision or row.pretrained):
        return "revision and pretrained go with hub"
    if row.pretrained and not (row.architecture and row.preprocessing):
        return "pretrained needs architecture and preprocessing"
    if row.format not in FORMATS:
        return f"format is one of {FORMATS}"
    if row.activation not in (None, *ACTIVATIONS):
        return f"activation is one of {ACTIVATIONS}"
    if surplus := sorted(row.training.keys() - _TRAINING):
        return f"unknown keys in training: {surplus}"
    if row.sha256 is not None and len(row.sha256) != 64:
        return "sha256 has 64 digits"
    return None


def resolve_path(location: str) -> str:
    """Turn "package:..." into a path; leave hub ids and paths as they are."""
    if location.startswith(PACKAGE):
        return str(Path(str(resources.files("bench"))) / location.removeprefix(PACKAGE))
    return location


def weights_folder() -> Path:
    """Where files that come from no hub are looked for: ``BENCH_WEIGHTS``, or a folder in the user's cache."""
    return Path(os.environ.get("BENCH_WEIGHTS", "~/.cache/robust-vlm-bench/weights")).expanduser()
