"""How a question about an image becomes token ids: by the checkpoint's own chat template, or as LLaVA-1.5 was trained.

A conversation gives the ids before the image, which are the same for every question, and those after it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from bench.errors import UsageError

_QUESTION = "<<question>>"
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Conversation(Protocol):
    """One way of asking.

    Attributes:
        before: token ids that precede the image's.
    """

    before: list[int]

    def after(self, question: str, answer: str | None = None) -> list[int]:
        """Token ids that follow the image's: the question, and the answer if there is one, without an end token.

        Raises:
            UsageError: the question or the answer holds the text that stands for the image.
        """


class ChatTemplate:
    """The checkpoint's own template, tokenised in one piece as transformers' processor does.

    Raises:
        UsageError: the template has no place, or several, for the image or the question.
    """

    def __init__(self, processor: Any, image_id: int) -> None:
        self.tokenizer, self.image_id = processor.tokenizer, image_id
        self.image = processor.tokenizer.convert_ids_to_tokens(image_id)
        content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
        try:
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        except Exception as error:  # a checkpoint's template raises anything at all
            raise UsageError(
                f"the checkpoint has no chat template for an image with a question ({error}); choose a conversation, "
                "as in --vlm 'NAME?conversation=...'"
            ) from error
        if text.count(self.image) != 1 or text.count(_QUESTION) != 1:
            raise UsageError(f"the chat template must hold one {self.image} and the question once; it gives {text!r}")
        self.template = text
        self.before = self._split("")[0]

    def after(self, question: str, answer: str | None = None) -> list[int]:
        """See `Conversation.after`."""
        return self._split(question, answer)[1]

    def _split(self, question: str, answer: str | None = None) -> tuple[list[int], list[int]]:
        _refuse_image(self.image, question, answer)
        text = self.template.replace(_QUESTION, question)
        ids = self.tokenizer(text if answer is None else f"{text} {answer}").input_ids
        place = ids.index(self.image_id)
        return ids[:place], ids[place + 1 :]


class Vicuna:
    r"""The conversation that LLaVA-1.5 was trained on (Liu et al. 2023, arXiv 2310.03744), with its system sentence.

    The text before and after the image is tokenised apart, so that a space piece precedes the image and another one
    the line break, as in the authors' code: ``... : ▁ IMAGE ▁ \n``.
    """

    def __init__(self, processor: Any, image_id: int) -> None:
        self.tokenizer = processor.tokenizer
        self.image = processor.tokenizer.convert_ids_to_tokens(image_id)
        self.before = self.tokenizer(f"{_SYSTEM} USER: ").input_ids

    def after(self, question: str, answer: str | None = None) -> list[int]:
        """See `Conversation.after`."""
        _refuse_image(self.image, question, answer)
        text = f"\n{question} ASSISTANT:"
        ids = self.tokenizer(text if answer is None else f"{text} {answer}").input_ids
        return list(ids[1:] if ids[:1] == [self.tokenizer.bos_token_id] else ids)


CONVERSATIONS = {"vicuna_v1": Vicuna}
"""Conversations that a suite can name; without a name the checkpoint's chat template counts."""


def conversation(name: str | None, processor: Any, image_id: int) -> Conversation:
    """A conversation by name; None for the checkpoint's own chat template.

    Raises:
        UsageError: an unknown name, or a template that does not fit.
    """
    if name is None:
        return ChatTemplate(processor, image_id)
    if name not in CONVERSATIONS:
        raise UsageError(f"unknown conversation {name!r}; there is {', '.join(CONVERSATIONS)}")
    return CONVERSATIONS[name](processor, image_id)


def answer_ids(talk: Conversation, question: str, answer: str, end: int) -> list[int]:
    """Tokens of an answer as they follow its question, with the end token.

    Raises:
        UsageError: the tokenizer merges the answer into its question, so that no loss of the answer alone exists.
    """
    asked, whole = talk.after(question), talk.after(question, answer)
    if whole[: len(asked)] != asked or len(whole) == len(asked):
        raise UsageError(f"the tokenizer does not keep the answer {answer!r} apart from its prompt")
    return [*whole[len(asked) :], end]


def _refuse_image(image: str, *texts: str | None) -> None:
    for text in texts:
        if text is not None and image in text:
            raise UsageError(f"the text {text!r} holds {image}, which stands for the image; take it out of the data")


def pad_left(sequences: Sequence[Sequence[int]], pad: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of equal length and their masks (1: a token, 0: padding)."""
    length = max(map(len, sequences))
    ids = [[*[pad] * (length - len(s)), *s] for s in sequences]
    return ids, [[0] * (length - len(s)) + [1] * len(s) for s in sequences]
