"""Small tokenizers built on the spot: bytes and words of a few sentences, and the special tokens of a kind of model."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "USER: what is in the image? ASSISTANT: a red circle near a blue square. Question: is it a dog? Answer: yes",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|> user assistant: two green triangles and no cat",
] * 4


def tokenizer(specials: Sequence[str], *, end: str, begin: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """BPE over bytes; ``named`` are special tokens that processors ask for as attributes, such as ``image_token``."""
    known = list(dict.fromkeys([*([begin] if begin else []), end, "<pad>", *specials, *named.values()]))
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    pieces.train_from_iterator(CORPUS, trainer)
    pieces.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in known])
    if begin:
        pieces.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B:1", special_tokens=[(begin, pieces.token_to_id(begin))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token=begin,
        eos_token=end,
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=named,
    )
