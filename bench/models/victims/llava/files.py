"""A LLaVA checkpoint folder in transformers' format, read with nothing missing."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

from bench.errors import UsageError
from bench.models.encoders.checkpoint import check_file
from bench.models.encoders.formats import transformers_bars
from bench.trust import code as trust

INDEX = "model.safetensors.index.json"
_NEEDED = (
    ("config.json",),
    ("tokenizer.json", "tokenizer.model"),
    ("processor_config.json", "preprocessor_config.json"),
)
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ImportError)


def read_llava(path: str, dtype: torch.dtype | str, *, tower: bool) -> tuple[LlavaForConditionalGeneration, Any]:
    """Model and processor of a LLaVA-1.5 checkpoint folder or hub id.

    Args:
        path: folder with config.json, safetensors (in shards with an index, or one file), tokenizer and processor.
        dtype: what to store weights in; "auto" for that of the checkpoint.
        tower: whether its own image tower will be used, and must be whole.

    Raises:
        UsageError: the folder is missing, holds another kind of model, lacks files, tensors or the image token, or
            asks for code to be run.
    """
    if not Path(path).is_dir() and (("/" in path and not path.count("/") == 1) or path.startswith(".")):
        raise UsageError(f"no such model folder: {path}")
    _check_files(Path(path))
    trust.check(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if config.model_type != "llava":
            raise UsageError(f"{path} holds a model of type {config.model_type!r}, not LLaVA-1.5 ('llava')")
        read_processor: Any = AutoProcessor.from_pretrained
        processor = read_processor(path, trust_remote_code=False)
        with transformers_bars():
            loaded: Any = LlavaForConditionalGeneration.from_pretrained(
                path, dtype=dtype, output_loading_info=True, trust_remote_code=False
            )
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise UsageError(_unreadable(path, " ".join(str(error).split())[:300])) from error
    model, report = loaded
    if absent := sorted(k for k in report["missing_keys"] if tower or "vision_tower" not in k):
        raise UsageError(f"{path} lacks {len(absent)} of the model's tensors: {absent[:3]}; download it again")
    _check_image_token(path, config, processor)
    return model, processor


def _unreadable(path: str, reason: str) -> str:
    if Path(path).is_dir():
        return f"{path} holds no LLaVA checkpoint that can be read ({reason}); download it again"
    return (
        f"no folder {path}, and the hub's cache does not hold the whole of a model of that name ({reason}). Where "
        f"there is a network, run `hf download {path}`, copy its cache here and let HF_HOME name it; or give a "
        "downloaded folder as --vlm"
    )


def _check_files(folder: Path) -> None:
    """Every file and every shard of the index is there, and no weights file is a text file in its place."""
    if not folder.is_dir():
        return  # a hub id; the hub's client fetches what is missing
    for names in _NEEDED:
        if not any((folder / name).is_file() for name in names):
            raise UsageError(f"{folder} lacks {' or '.join(names)}; download the whole folder")
    named = {"model.safetensors"} if (folder / "model.safetensors").is_file() else set()
    if (folder / INDEX).is_file():
        named = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    if absent := sorted(name for name in named if not (folder / name).is_file()):
        raise UsageError(f"{folder} lacks {len(absent)} of {len(named)} shards named in {INDEX}: {', '.join(absent)}")
    for name in sorted(named):
        check_file(folder / name)


def _check_image_token(path: str, config: Any, processor: Any) -> None:
    token, expected = getattr(processor, "image_token", "<image>"), int(config.image_token_id)
    found = processor.tokenizer.get_vocab().get(token)
    if found != expected:
        said = "does not know it" if found is None else f"has {found}"
        raise UsageError(f"{path}: the config says that {token} is token {expected}, the tokenizer {said}; fix it")
