"""A LLaVA checkpoint folder in transformers' format, read with nothing missing."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging

from bench.errors import UsageError

INDEX = "model.safetensors.index.json"
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ImportError)


def read_llava(path: str, dtype: torch.dtype | str, *, tower: bool) -> tuple[LlavaForConditionalGeneration, Any]:
    """Model and processor of a LLaVA-1.5 checkpoint folder or hub id.

    Args:
        path: folder with config.json, safetensors (in shards with an index, or one file), tokenizer and processor.
        dtype: what to store weights in; "auto" for that of the checkpoint.
        tower: whether its own image tower will be used, and must be whole.

    Raises:
        UsageError: the folder is missing, holds another kind of model, or lacks files, tensors or the image token.
    """
    if not Path(path).is_dir() and (("/" in path and not path.count("/") == 1) or path.startswith(".")):
        raise UsageError(f"no such model folder: {path}")
    try:
        config = AutoConfig.from_pretrained(path)
        if config.model_type != "llava":
            raise UsageError(f"{path} holds a model of type {config.model_type!r}, not LLaVA-1.5 ('llava')")
        _check_weight_files(Path(path))
        processor = AutoProcessor.from_pretrained(path)
        with _bar_on_terminals_only():
            loaded: Any = LlavaForConditionalGeneration.from_pretrained(path, dtype=dtype, output_loading_info=True)
    except _UNREADABLE as error:
        raise UsageError(f"{path} holds no LLaVA checkpoint that can be read: {error}") from error
    model, report = loaded
    if absent := sorted(k for k in report["missing_keys"] if tower or "vision_tower" not in k):
        raise UsageError(f"{path} lacks {len(absent)} of the model's tensors: {absent[:3]}; download it again")
    _check_image_token(path, config, processor)
    return model, processor


@contextmanager
def _bar_on_terminals_only() -> Iterator[None]:
    """Transformers' bar of the weights loaded so far has no place in a log."""
    hide = not sys.stderr.isatty() and logging.is_progress_bar_enabled()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _check_weight_files(folder: Path) -> None:
    """Every shard of the index is there, and none is a text file in its place."""
    if not folder.is_dir():
        return  # a hub id; the hub's client fetches what is missing
    named = {"model.safetensors"} if (folder / "model.safetensors").is_file() else set()
    if (folder / INDEX).is_file():
        named = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    if absent := sorted(name for name in named if not (folder / name).is_file()):
        raise UsageError(f"{folder} lacks {len(absent)} of {len(named)} shards named in {INDEX}: {', '.join(absent)}")
    for name in sorted(named):
        with (folder / name).open("rb") as file:
            head = file.read(64)
        if head.lstrip()[:1] == b"<" or head.startswith(b"version https://git-lfs"):
            raise UsageError(f"{folder / name} is an HTML page or a git-lfs pointer, not weights; download it again")


def _check_image_token(path: str, config: Any, processor: Any) -> None:
    token, expected = getattr(processor, "image_token", "<image>"), int(config.image_token_id)
    found = processor.tokenizer.get_vocab().get(token)
    if found != expected:
        said = "does not know it" if found is None else f"has {found}"
        raise UsageError(f"{path}: the config says that {token} is token {expected}, the tokenizer {said}; mend it")
