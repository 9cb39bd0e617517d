"""The vision-language model of a run: which one, how it is asked, and what it is given beside the encoder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.config import RunConfig, load_suite
from bench.data.readers import load as read_dataset
from bench.errors import UsageError
from bench.models.encoders.catalogue import resolve_path
from bench.models.encoders.encoder import Encoder
from bench.models.victims import specs
from bench.models.victims.catalogue import place_of
from bench.models.victims.load import family_of, is_black_box, load_victim, settings_of
from bench.models.victims.loaded import LoadedVictim, OnPixels, ShowsExamples
from bench.running.data import root_of, row_of
from bench.trust.places import no_links
from tasks.base import Sample

CACHE = "endpoint-cache"  # folder in that of the output, of what endpoints answered


def vlm_of(config: RunConfig) -> str:
    """Folder or hub id of the run's vision-language model."""
    return place_of(_spec(config).name)


def sources_of(config: RunConfig) -> list[RunConfig]:
    """The run with what its images are made on in the victim's place: once, or for each member of an ensemble."""
    vlm = config.surrogate_vlm or config.vlm
    return [replace(config, encoder=name, vlm=vlm) for name in config.surrogates] or [config]


def load_for(config: RunConfig, task: str, encoder: Encoder | None, device: torch.device) -> LoadedVictim:
    """Load the run's vision-language model, around an encoder unless it keeps its own, with examples if it shows some.

    Raises:
        UsageError: as of `load_victim`; or it needs examples, and the dataset does not say where they are.
    """
    name, chosen = _spec(config)
    settings = settings_of(name, config.protocol, load_suite(config.suite).victim, chosen)
    if is_black_box(vlm_of(config)):
        own = pace_of(config)
    else:
        keeps_own = config.tower != "encoder" and "tower" in family_of(resolve_path(place_of(name)))[1].settings
        own = {"tower": config.tower} if keeps_own else {}
    model = load_victim(name, encoder, settings | own, device=device)
    if isinstance(model, ShowsExamples) and (wanted := model.wants_examples(task)) is not None:
        model.show(task, _examples(config, images=wanted == "images"))
    return model


def chosen_of(
    config: RunConfig, victim: LoadedVictim, source: LoadedVictim, sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """What the header says of the victim and of what the images are made on, beside their weights.

    Args:
        config: the run.
        victim: the model that answers.
        source: the one that images are made on.
        sizes: (height, width) of the run's images.
    """
    found: dict[str, Any] = {"victim": _settings(victim)}
    if isinstance(victim, OnPixels):
        found["victim_facts"] = victim.facts(sizes)
    if config.surrogate_vlm is not None:
        found |= {"surrogate_model": vlm_of(sources_of(config)[0]), "surrogate_victim": _settings(source)}
    return {key: value for key, value in found.items() if value}


def pace_of(config: RunConfig) -> dict[str, str]:
    """Settings of an endpoint that move no number."""
    given = {name: getattr(config, name.replace("-", "_")) for name in ("rpm", "concurrency", "max-cost", "price")}
    settings = {name: str(value) for name, value in given.items() if value is not None}
    return settings | {"cache": str(no_links(config.output / CACHE, config.output))}


def _settings(victim: LoadedVictim) -> dict[str, str]:
    """Those that the header does not say elsewhere."""
    return {key: value for key, value in victim.settings.items() if key != "tower"}


def _spec(config: RunConfig) -> specs.VictimSpec:
    return specs.parse(config.vlm or load_suite(config.suite).vlm)


def _examples(config: RunConfig, *, images: bool) -> tuple[Sample, ...]:
    """The training samples that go with the run's dataset: the dataset that its row names.

    Without images, only the files that hold questions and answers are needed.
    """
    name, rows = row_of(config).get("demonstrations"), load_suite(config.suite).datasets
    victim = _spec(config).name
    if name is None or (root := root_of(config)) is None:
        raise UsageError(
            f"{victim} is shown examples of the task before each question, and dataset {config.dataset!r} has none for "
            f"it: add demonstrations = NAME to its row, the name of a dataset of a training split; or give a file with "
            f"--vlm '{victim}?demonstrations=FILE'"
        )
    if name not in rows:
        raise UsageError(f"dataset {config.dataset!r}: its demonstrations are {name!r}, which the suite does not know")
    row = rows[name] if images else {**rows[name], **{key: "." for key in ("images",) if key in rows[name]}}
    return read_dataset(name, row, root).samples
