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


def _build(vocabulary: list[str], template: str) -> PreTrainedTokenizerFast:
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(":", "isolated")]
    )
    specials = [word for word in template.split() if word != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, ids[word]) for word in specials]
    )
    make: Any = PreTrainedTokenizerFast  # untyped in transformers
    return cast(
        PreTrainedTokenizerFast,
        make(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"),
    )
