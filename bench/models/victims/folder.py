"""A folder of a vision-language model in transformers' format: whether all of it is there, before it is read."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.errors import UsageError
from bench.models.encoders.checkpoint import weights_files

_NEEDED = (
    ("config.json",),
    ("tokenizer.json", "tokenizer.model"),
    ("processor_config.json", "preprocessor_config.json"),
)
LEAST_PER_BYTE = 8  # numbers that a byte of weights can hold at the very most


def check_files(folder: Path) -> None:
    """Every file and every shard of the index is there, and no weights file is a text file in its place.

    Raises:
        UsageError: one is not; a hub id is left to the hub's client, which fetches what is missing.
    """
    if not folder.is_dir():
        return
    for names in _NEEDED:
        if not any((folder / name).is_file() for name in names):
            raise UsageError(f"{folder} lacks {' or '.join(names)}; download the whole folder")
    weights_files(folder)


def check_weight(folder: Path, build: Callable[[], nn.Module]) -> None:
    """Refuse a configuration whose model is far larger than the weights beside it, before memory is taken for it.

    Args:
        folder: where both lie; a hub id is not checked.
        build: makes the model that the configuration describes.

    Raises:
        UsageError: so it is.
    """
    if not folder.is_dir():
        return
    with torch.device("meta"):
        skeleton = build()
    described = sum(parameter.numel() for parameter in skeleton.parameters())
    stored = sum(file.stat().st_size for file in weights_files(folder))
    if described > LEAST_PER_BYTE * stored:
        raise UsageError(
            f"{folder}/config.json describes a model of {described:,} numbers, the weights beside it are {stored:,} "
            "bytes; download both again"
        )


def unreadable(place: str, kind: str, reason: str) -> str:
    """Why a model of this kind cannot be read, and what to do."""
    folder = Path(place)
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        return (
            f"{place} has no tokenizer.json, and its tokenizer.model cannot be converted ({reason}); pip install "
            "sentencepiece protobuf tiktoken, or put the model's tokenizer.json beside it"
        )
    if folder.is_dir():
        return f"{place} holds no {kind} that can be read ({reason}); download it again"
    return (
        f"no folder {place}, and the hub's cache does not hold the whole of a model of that name ({reason}). Where "
        f"there is a network, run `hf download {place}`, copy its cache here and let HF_HOME name it; or give a "
        "downloaded folder as --vlm"
    )
