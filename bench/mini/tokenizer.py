"""Word-level tokenizers of the closed mini vocabulary, as transformers fast tokenizers."""

from typing import Any, cast

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from bench.mini.language import words

IMAGE_TOKEN = "<image>"


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """For CLIP: every text is closed by ``</s>``, the highest id, whose position open_clip pools.

    Periods vanish: the mini world writes none, but many prompt templates end in one.
    """
    tokenizer = _build(["<pad>", "<unk>", "<s>", *words(), "</s>"], "<s> $A </s>")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(".", "")
    return tokenizer


def llava_tokenizer() -> PreTrainedTokenizerFast:
    """For LLaVA: a text begins with ``<s>`` and is left open; pads on the left."""
    tokenizer = _build(["<pad>", "<unk>", "<s>", "</s>", *words(), IMAGE_TOKEN], "<s> $A")
    tokenizer.padding_side = "left"
    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE_TOKEN]})
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """For Qwen2-VL: marks as in its own vocabulary, nothing is added to a text; pads on the left."""
    marks = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    vocabulary = ["<pad>", "<unk>", *marks, "user", "assistant", *words()]
    make: Any = PreTrainedTokenizerFast  # untyped in transformers
    made = make(tokenizer_object=_words_of(vocabulary), pad_token="<pad>", unk_token="<unk>", eos_token="<|im_end|>")
    made.padding_side = "left"
    made.add_special_tokens({"extra_special_tokens": marks})
    return cast(PreTrainedTokenizerFast, made)


def _words_of(vocabulary: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(":", "isolated")]
    )
    return tokenizer


def _build(vocabulary: list[str], template: str) -> PreTrainedTokenizerFast:
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = _words_of(vocabulary)
    specials = [word for word in template.split() if word != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, ids[word]) for word in specials]
    )
    make: Any = PreTrainedTokenizerFast  # untyped in transformers
    return cast(
        PreTrainedTokenizerFast,
        make(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"),
    )
