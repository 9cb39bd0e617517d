"""What a checkpoint may ask for: numbers and words, never that code of its own is run.

Every loader checks the folder or hub id that it reads before transformers or open_clip see it, and passes
``trust_remote_code=False`` by name wherever it can. The rule, for every file of the folder at any depth whose name is
``*config*.json``, and for every object inside it:

  - ``trust_remote_code``, if it is not false, is refused;
  - ``custom_pipelines`` is refused;
  - ``auto_map``, which names classes in Python files of the checkpoint, is refused. It may stay in a ``config.json``
    only, beside a ``model_type`` that transformers has code of its own for (as in MPT's repository) and if it names
    configurations and models alone: then transformers never reads it. In any other file (tokenizers, processors,
    open_clip's configuration) it is refused always;
  - ``attn_implementation`` that names a repository of the hub is refused: it is downloaded and run;
  - adapters (``adapter_config.json``) are refused: they name another model, and would be left out else;
  - a tower of timm's that is a place (``local-dir:``, ``hf-hub:``), and a text tower or tokenizer named by an absolute
    path or with "..", are refused: they would be read;
  - a tokenizer's file, such as ``vocab_file``, that is there and not in the folder is refused: it would be read.

What open_clip's configuration names besides, a tokenizer or a text tower, is checked in the same way.

Weights are tensors and nothing else: safetensors, pickles read with ``weights_only=True``, and TorchScript archives, of
which `bench.models.encoders.torchscript` reads the tensors without `torch.jit.load`, for an archive holds code.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import parse_model_name
from transformers import dynamic_module_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.hub import cached_file

from bench.errors import UsageError

OPEN_CLIP_CONFIG = "open_clip_config.json"
_CONFIGS = "*config*.json"
_HUB_CONFIGS = (  # what transformers and open_clip read of a repository
    OPEN_CLIP_CONFIG,
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
ADAPTER = "adapter_config.json"


def check(name: str | Path) -> None:
    """Refuse a folder, or else a hub id, that asks for code to be run.

    Raises:
        UsageError: it does; the message names the file and the key.
    """
    folder = Path(name)
    adapter = folder / ADAPTER if folder.is_dir() else _hub_file(str(name), ADAPTER)
    if adapter is not None and adapter.is_file():
        raise UsageError(
            f"{adapter}: adapters (LoRA) name their base model elsewhere and are not read; merge them into the weights "
            "and save the whole model"
        )
    for path in sorted(folder.rglob(_CONFIGS)) if folder.is_dir() else _of_hub(str(name)):
        _check_file(path)


def check_open_clip(identifier: str) -> dict[str, Any]:
    """Refuse what one of open_clip's identifiers reads if it asks for code to be run.

    Args:
        identifier: an architecture, ``local-dir:FOLDER`` or ``hf-hub:ID``.

    Returns:
        The options that its tokenizer is to be built with.

    Raises:
        UsageError: see `check`.
    """
    schema, name = parse_model_name(identifier)
    if schema is None:
        config = open_clip.get_model_config(name)
    else:
        check(name)
        found = Path(name) / OPEN_CLIP_CONFIG if schema == "local-dir" else _hub_file(name, OPEN_CLIP_CONFIG)
        config = _read(found).get("model_cfg") if found is not None else None
    text = _object(_object(config).get("text_cfg"))
    tokenizer, tower = (str(text.get(key) or "") for key in ("hf_tokenizer_name", "hf_model_name"))
    if tower:
        check(tower)
    if tokenizer and (schema != "local-dir" or Path(tokenizer).is_dir()):  # a folder's own tokenizer lies in it
        check(tokenizer)
    return {"trust_remote_code": False} if tokenizer or (schema == "hf-hub" and not config) else {}


def reason(error: Exception) -> str:
    """What a library says of a file that it cannot read, on one line, without its advice to trust the file."""
    said = " ".join(str(error).split())
    if "weights_only" in said:
        return "it is damaged, or holds Python objects, which could run code, beside tensors"
    return said[:300]


@contextmanager
def never_asking() -> Iterator[None]:
    """Have transformers refuse where it would else ask the user whether to run code, for it may not be told."""
    before, dynamic_module_utils.TIME_OUT_REMOTE_CODE = dynamic_module_utils.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def config_of(place: str) -> dict[str, Any]:
    """The config.json of a folder or hub id, as it stands; empty where there is none that can be read."""
    path: Path | None = Path(place) / "config.json"
    if not Path(place).exists():
        path = _hub_file(place, "config.json") if place.count("/") == 1 else None
    return _read(path) if path is not None and path.is_file() else {}


def folder_of(place: str) -> Path | None:
    """The folder that a folder's name or a hub id stands for; None where nothing of it is on this machine."""
    if Path(place).is_dir():
        return Path(place)
    found = _hub_file(place, "config.json") if place.count("/") == 1 else None
    return None if found is None else found.parent


def _of_hub(name: str) -> list[Path]:
    found = (_hub_file(name, file) for file in _HUB_CONFIGS)
    return [path for path in found if path is not None]


def _hub_file(name: str, file: str) -> Path | None:
    """A file of a repository where there is one; whether it can be had at all is for the loader to say."""
    try:
        found = cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):
        return None
    return None if found is None else Path(found)


def _check_file(path: Path) -> None:
    for where, entry in _objects(_read(path)):
        if (key := _asks_for_code(path.name, entry)) is not None:
            raise UsageError(
                f"{path}: {where}{key} asks for code of the checkpoint's own to be run, which is never done; use a "
                "checkpoint that open_clip or transformers load by themselves, or delete the key if this one does "
                "without"
            )
        if (key := _outside(path.parent, entry)) is not None:
            raise UsageError(
                f"{path}: {where}{key} is {entry[key]!r}, a place outside the checkpoint's folder, which is not read; "
                "delete the key"
            )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply to be read; download it again") from error
    except (ValueError, OSError):
        return {}  # nothing reads this as JSON; the loader that needs it says so
    return _object(found)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object inside a JSON value, with the keys that lead to it."""
    if isinstance(value, dict):
        yield where, value
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _objects(inner, f"{where}{key}.")


def _asks_for_code(file: str, entry: dict[str, Any]) -> str | None:
    """The key that does."""
    for key in ("trust_remote_code", "custom_pipelines"):
        if entry.get(key):
            return key
    if (classes := entry.get("auto_map")) and not _never_read(file, entry.get("model_type"), classes):
        return "auto_map"
    return next((key for key in entry if "attn_implementation" in key and "/" in str(entry[key])), None)


def _outside(folder: Path, entry: dict[str, Any]) -> str | None:
    """The key that names a place outside the folder, of a file one that is there.

    ``special_tokens_map_file`` is never read.
    """
    if ":" in str(entry.get("timm_model_name") or ""):
        return "timm_model_name"
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if (place := Path(str(entry.get(key) or "."))).is_absolute() or ".." in place.parts:
            return key
    inner = Path(os.path.abspath(folder))
    named = [key for key in entry if key.endswith("_file") and key != "special_tokens_map_file"]
    there = [key for key in named if isinstance(entry[key], str) and os.path.isfile(entry[key])]
    return next((key for key in there if not Path(os.path.abspath(entry[key])).is_relative_to(inner)), None)


def _never_read(file: str, model_type: Any, classes: Any) -> bool:
    """Whether transformers has a class of its own for all that an ``auto_map`` names."""
    plain = isinstance(classes, dict) and all(name.startswith(("AutoConfig", "AutoModel")) for name in classes)
    return file == "config.json" and plain and str(model_type) in CONFIG_MAPPING
