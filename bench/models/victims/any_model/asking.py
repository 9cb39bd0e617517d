"""How any model is asked: by its own chat template; a few older kinds have none and are asked as they were trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from bench.errors import UsageError

_QUESTION, _ANSWER = "<<question>>", "<<answer>>"


@dataclass(frozen=True)
class Form:
    """A prompt in the words of a checkpoint, around a question.

    Attributes:
        text: what the processor is given, with `_QUESTION` once.
        behind: what the processor adds behind it.
        lead: what stands between prompt and answer.
        end: what stands behind an answer; empty where nothing says.
        digest: of the template.
    """

    text: str
    behind: str = ""
    lead: str = ""
    end: str = ""
    digest: str = ""

    def prompt(self, question: str) -> str:
        """What the processor is given."""
        return self.text.replace(_QUESTION, question)


WITHOUT_TEMPLATE = {
    "paligemma": Form(f"<image>{_QUESTION}", behind="\n"),
    "blip-2": Form(f"Question: {_QUESTION} Answer:", lead=" "),
    "instructblip": Form(f"{_QUESTION}", lead=" "),
}
"""By model_type: kinds of checkpoints that are published without a chat template, and how their authors ask them."""


def form_of(processor: Any, model_type: str, place: str) -> Form:
    """How a checkpoint is asked.

    Raises:
        UsageError: it has no chat template and none is known for its kind, or its template does not hold the question.
    """
    template = getattr(processor, "chat_template", None)
    if template is None:
        if model_type not in WITHOUT_TEMPLATE:
            raise UsageError(
                f"{place} has no chat template, and none is known for models of type {model_type!r}; put the model's "
                "chat_template.jinja into its folder"
            )
        form = WITHOUT_TEMPLATE[model_type]
        return Form(form.text, form.behind, form.lead, form.end, _digest(form.text + form.behind))
    asked = _render(processor, place, answered=False)
    if asked.count(_QUESTION) != 1:
        raise UsageError(f"{place}: its chat template must hold the question once; it gives {asked!r}")
    lead, end = _around_answer(asked, _render(processor, place, answered=True))
    return Form(asked, lead=lead, end=end, digest=_digest(str(template)))


def _render(processor: Any, place: str, *, answered: bool) -> str:
    """A conversation of one question, answered or waiting for an answer."""
    content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    talk: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answered:
        talk.append({"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]})
    try:
        text: str = processor.apply_chat_template(talk, add_generation_prompt=not answered, tokenize=False)
    except Exception as error:  # a checkpoint's template raises anything at all
        raise UsageError(f"{place}: its chat template fails on an image with a question ({error})") from error
    return text


def _around_answer(asked: str, answered: str) -> tuple[str, str]:
    """What the template puts before and behind an answer; nothing where it does not go on from its own prompt."""
    if not answered.startswith(asked) or _ANSWER not in answered[len(asked) :]:
        return "", ""
    lead, _, end = answered[len(asked) :].partition(_ANSWER)
    return lead, end


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


class Asking:
    """Prompts and answers as token ids."""

    def __init__(self, form: Form, tokenizer: Any, ends: Sequence[int], image_token: str) -> None:
        """Keep a form; ``ends`` are the tokens that end an answer."""
        self.form, self.tokenizer, self.image_token = form, tokenizer, image_token
        said = tokenizer(form.end, add_special_tokens=False).input_ids if form.end else []
        self.end = next((token for token in said if token in ends), ends[0])

    def prompt(self, question: str) -> str:
        """What the processor is given.

        Raises:
            UsageError: the question holds the text that stands for the image.
        """
        if self.image_token and self.image_token in question:
            raise UsageError(
                f"the text {question!r} holds {self.image_token}, which stands for the image; take it out of the data"
            )
        return self.form.prompt(question)

    def answer(self, question: str, answer: str) -> list[int]:
        """Tokens of an answer as they follow its prompt, with the end token.

        Raises:
            UsageError: the tokenizer merges the answer into its prompt, so that no loss of the answer alone exists.
        """
        text = self.prompt(question) + self.form.behind
        asked, whole = (list(self.tokenizer(t).input_ids) for t in (text, f"{text}{self.form.lead}{answer}"))
        if asked and asked[-1] == self.tokenizer.eos_token_id != whole[len(asked) - 1]:  # some tokenizers end a text
            asked, whole = asked[:-1], whole[:-1]
        if whole[: len(asked)] != asked or len(whole) == len(asked):
            raise UsageError(f"the tokenizer does not keep the answer {answer!r} apart from its prompt")
        return [*whole[len(asked) :], self.end]
