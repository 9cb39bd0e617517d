"""Text to token ids and back: the language model's byte-level BPE with the three tokens that OpenFlamingo adds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers.utils.hub import cached_file

from bench.errors import UsageError

IMAGE, END, PAD = "<image>", "<|endofchunk|>", "<PAD>"
LONGEST = 2000  # tokens; the original cuts longer texts at their right end, where the question stands

# What transformers of 2023 did to decoded text unless a tokenizer's config said no.
_SPACES = {f" {mark}": mark.strip() for mark in (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re")}


class Vocabulary:
    """Token ids of texts.

    Attributes:
        image: the token that stands for an image.
        end: the token that ends an answer, and nothing else does.
        pad: what shorter texts of a batch are filled with.
    """

    def __init__(self, tokenizer: Tokenizer, pad: str | None = None, *, clean_spaces: bool = True) -> None:
        """Add the tokens in the order in which the released checkpoints number them.

        Args:
            tokenizer: without them.
            pad: a padding token that the language model's files name; None to add one.
            clean_spaces: take spaces before punctuation out of decoded text.
        """
        self.tokenizer, self.clean_spaces = tokenizer, clean_spaces
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (END, IMAGE)])
        if pad is None:
            tokenizer.add_special_tokens([AddedToken(PAD, special=True, normalized=False)])
        ids = tokenizer.get_vocab()
        self.end, self.image, self.pad = ids[END], ids[IMAGE], ids[PAD if pad is None else pad]

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids, with nothing added.

        Raises:
            UsageError: the text is longer than `LONGEST` tokens.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > LONGEST:
            raise UsageError(
                f"a prompt of {len(ids)} tokens is longer than OpenFlamingo's {LONGEST}; use fewer or shorter "
                f"demonstrations (it begins {text[:60]!r})"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids up to the first end token; special tokens spell nothing."""
        ids = list(ids)
        said = ids[: ids.index(self.end)] if self.end in ids else ids
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        for old, new in _SPACES.items() if self.clean_spaces else ():
            text = text.replace(old, new)
        return text

    def spell(self) -> list[str | None]:
        """What each token spells; None for the one that ends an answer."""
        return [None if i == self.end else self.decode([i]) for i in range(len(self))]


def read_vocabulary(path: str) -> Vocabulary:
    """The tokenizer of a language model's folder or hub id, read as data.

    transformers' own tokenizer class for these models names a padding token that the original does not use.

    Raises:
        UsageError: no tokenizer.json there, or one that cannot be read.
    """
    file = _find(path, "tokenizer.json")
    if file is None:
        raise UsageError(f"{path} holds no tokenizer.json; download the whole language model")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower class
        raise UsageError(f"{file} is no tokenizer that can be read ({error}); download it again") from error
    stated = _json(path, "special_tokens_map.json") | _json(path, "tokenizer_config.json")
    pad = stated.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if pad is not None and pad not in tokenizer.get_vocab():
        pad = None
    return Vocabulary(tokenizer, pad, clean_spaces=bool(stated.get("clean_up_tokenization_spaces", True)))


def _find(path: str, name: str) -> Path | None:
    if Path(path).is_dir():
        file = Path(path) / name
        return file if file.is_file() else None
    try:
        found = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UsageError(
            f"no folder {path}, and no model of that name in the hub's cache ({' '.join(str(error).split())[:200]}); "
            f"run `hf download {path}` where there is a network, or give a downloaded folder"
        ) from error
    return None if found is None else Path(found)


def _json(path: str, name: str) -> dict[str, Any]:
    file = _find(path, name)
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except ValueError as error:
        raise UsageError(f"{file} is no JSON ({error}); download it again") from error
