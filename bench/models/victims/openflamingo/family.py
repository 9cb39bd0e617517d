"""OpenFlamingo as a family of victims (never imports torch)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.models.victims.family import Setting, Source
from bench.models.victims.openflamingo.releases import RELEASES, Release

if TYPE_CHECKING:
    import torch

    from bench.models.encoders.encoder import Encoder
    from bench.models.victims.loaded import LoadedVictim

MODEL_TYPE = "openflamingo"
CHECKPOINT_FILE, LANGUAGE_FOLDER, DEMONSTRATIONS_FILE = "checkpoint.safetensors", "language", "demonstrations.json"
RELEASED_FILE = "checkpoint.pt"
OWNER = "openflamingo/"  # of the releases on the hub


@dataclass(frozen=True)
class Place:
    """Where the parts of one OpenFlamingo lie.

    Attributes:
        checkpoint: perceiver, gated blocks and embeddings.
        language: folder or hub id of the language model.
        demonstrations: questions with answers that are shown before a question; None: there is no such file.
        every: layers of the language model to a gated block, where it is known.
    """

    checkpoint: Path
    language: str
    demonstrations: Path | None
    every: int | None


class OpenFlamingoFamily:
    """A released ``checkpoint.pt``, or a folder whose config.json has the model_type "openflamingo"."""

    about = "OpenFlamingo v2, released checkpoints and folders of the same parts; its image tower is the encoder"
    settings: Mapping[str, Setting] = {
        "language": Setting("folder or hub id of the language model; by default what the folder or the release says"),
        "demonstrations": Setting("JSON file of questions and answers to show; by default the folder's own"),
        "demonstrations_seed": Setting("of the draw for each sample; by default 0"),
        "shots": Setting("examples with their images before a question, 4 or 8; by default 0: two without images"),
        "beams": Setting("of beam search; by default 1, greedy decoding"),
        "length_penalty": Setting("of beam search; by default -2 for captions and 0 for answers, as published"),
        "length_counts": Setting(
            "tokens that the length penalty counts: those generated (transformers of today, the default), or the "
            "prompt's too (transformers of 2023, as published)",
            ("generated", "prompt"),
        ),
    }
    protocols: Mapping[str, Mapping[str, str]] = {"paper": {"beams": "3", "length_counts": "prompt"}}

    def owns(self, source: Source) -> bool:
        """Whether its config says so, or it is a release by name or by its file."""
        if source.model_type is not None:
            return source.model_type == MODEL_TYPE
        found = source.path
        return (
            release_of(source.place) is not None
            or (found is not None and found.name == RELEASED_FILE)
            or (found is not None and (found / RELEASED_FILE).is_file())
        )

    def load(
        self, source: Source, encoder: "Encoder | None", settings: Mapping[str, str], device: "torch.device"
    ) -> "LoadedVictim":
        """See `bench.models.victims.family.Family.load`."""
        from bench.models.victims.openflamingo.victim import load

        if encoder is None:
            raise UsageError(f"{source.place} has no image tower of its own; give an encoder")
        return load(find(source, settings), encoder, settings, device)


def release_of(place: str) -> Release | None:
    """The release that a hub id or a folder is named after."""
    name = place.removesuffix("/" + RELEASED_FILE).rstrip("/").rsplit("/", 1)[-1]
    return next((release for release in RELEASES if release.repository == name), None)


def find(source: Source, settings: Mapping[str, str]) -> Place:
    """Where the parts lie.

    Raises:
        UsageError: the checkpoint is missing, or nothing says which language model it was trained on.
    """
    release, checkpoint = release_of(source.place), _checkpoint(source)
    language = settings.get("language") or _language(source, checkpoint.parent)
    if language is None and release is not None:
        language = release.language
    if language is None:
        raise UsageError(
            f"{source.place} does not say which language model it was trained on; write a config.json beside it with "
            f'{{"model_type": "{MODEL_TYPE}", "checkpoint": "{checkpoint.name}", "language": "FOLDER OR HUB ID"}}'
        )
    shown = Path(settings.get("demonstrations", checkpoint.parent / DEMONSTRATIONS_FILE))
    if "demonstrations" in settings and not shown.is_file():
        raise UsageError(f"no file of demonstrations {shown}; name one with questions and answers of a training split")
    return Place(checkpoint, language, shown if shown.is_file() else None, release.every if release else None)


def _checkpoint(source: Source) -> Path:
    found = source.path
    if found is None:
        return _of_hub(source.place)
    if found.is_file():
        return found
    name = source.config.get("checkpoint", RELEASED_FILE)
    if not isinstance(name, str) or Path(name).name != name:
        raise UsageError(f"{found}/config.json: checkpoint must be the name of a file beside it, not {name!r}")
    if not (found / name).is_file():
        raise UsageError(f"{found} lacks {name}; download the whole folder")
    return found / name


def _of_hub(place: str) -> Path:
    from transformers.utils.hub import cached_file

    name = place if "/" in place else OWNER + place
    try:
        return Path(str(cached_file(name, RELEASED_FILE)))
    except OSError as error:
        raise UsageError(
            f"no folder {place}, and the hub's cache does not hold {RELEASED_FILE} of {name}; run `hf download {name}` "
            "where there is a network, or give a downloaded folder as --vlm"
        ) from error


def _language(source: Source, folder: Path) -> str | None:
    """What config.json names: a folder beside it, or a hub id."""
    named = source.config.get("language")
    if named is None and (folder / LANGUAGE_FOLDER).is_dir():
        return str(folder / LANGUAGE_FOLDER)
    if not isinstance(named, str):
        return None
    return str(folder / named) if (folder / named).is_dir() else named
