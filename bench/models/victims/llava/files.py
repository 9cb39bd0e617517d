"""A LLaVA checkpoint folder in transformers' format, read with nothing missing."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

from bench.errors import UsageError
from bench.models.encoders.checkpoint import check_sizes
from bench.models.encoders.formats import transformers_bars
from bench.models.victims.folder import check_files, check_weight, unreadable
from bench.models.victims.llava import ORIGINAL
from bench.trust import code as trust


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
    trust.check(path)
    _check_config(path, trust.config_of(path))
    check_files(Path(path))
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        check_weight(Path(path), lambda: LlavaForConditionalGeneration(config))
        read_processor: Any = AutoProcessor.from_pretrained
        processor = read_processor(path, trust_remote_code=False)
        with transformers_bars():
            loaded: Any = LlavaForConditionalGeneration.from_pretrained(
                path, dtype=dtype, output_loading_info=True, trust_remote_code=False
            )
    except UsageError:
        raise
    except Exception as error:  # transformers raises anything at all on damaged files
        raise UsageError(unreadable(path, "LLaVA checkpoint", trust.reason(error))) from error
    model, report = loaded
    if absent := sorted(k for k in report["missing_keys"] if tower or "vision_tower" not in k):
        raise UsageError(f"{path} lacks {len(absent)} of the model's tensors: {absent[:3]}; download it again")
    _check_image_token(path, config, processor)
    return model, processor


def _check_config(path: str, config: dict[str, Any]) -> None:
    """Refuse another model, and features that are chosen in another way than LLaVA-1.5's."""
    kind = config.get("model_type")
    if kind in ORIGINAL:
        raise UsageError(
            f"{path} is in the format of LLaVA's own code ({kind}); convert it with transformers' "
            "convert_llava_weights_to_hf.py, or use the converted one of the hub (llava-hf/llava-1.5-7b-hf)"
        )
    if config and kind != "llava":
        raise UsageError(f"{path} holds a model of type {kind!r}, not LLaVA-1.5 ('llava')")
    check_sizes(config, f"{path}/config.json")
    layer, strategy = config.get("vision_feature_layer", -2), config.get("vision_feature_select_strategy", "default")
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise UsageError(f"{path}: vision_feature_layer {layer!r} is not supported; known: the number of one layer")
    if strategy != "default":
        raise UsageError(
            f"{path}: vision_feature_select_strategy {strategy!r} is not supported; known: 'default', which leaves "
            "out the class token"
        )


def _check_image_token(path: str, config: Any, processor: Any) -> None:
    token, expected = getattr(processor, "image_token", "<image>"), config.image_token_id
    found = processor.tokenizer.get_vocab().get(token)
    if found != expected:
        said = "does not know it" if found is None else f"has {found}"
        raise UsageError(f"{path}: the config says that {token} is token {expected}, the tokenizer {said}; fix it")
