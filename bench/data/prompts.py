"""Prompts made of a row's cells by a template."""

import re
from collections.abc import Mapping, Sequence

from bench.errors import UsageError
from tasks.metrics.letters import LETTERS

FIELDS = ("question", "hint", "ocr", "choices")
_FIELD = re.compile(r"\{(\w+)\}")


def check_template(template: str, given: Sequence[str], where: str) -> None:
    """Refuse a template with a field that there is nothing for.

    Args:
        template: text with fields such as ``{question}``.
        given: fields that the rows have.
        where: what it belongs to, for messages.

    Raises:
        UsageError: it has one.
    """
    for name in _FIELD.findall(template):
        if name not in given:
            what = f"known: {', '.join(FIELDS)}"
            if name in FIELDS:
                have = ", ".join(given) or "none"
                what = f"the rows have {have}; name its column by {name}=COLUMN, or give a template= without it"
            raise UsageError(f"{where}: the template asks for {{{name}}}; {what}")


def filled(template: str, values: Mapping[str, str]) -> str:
    r"""The template with its fields filled in; a line whose field is empty is left out.

    What is filled in is text, whatever braces it holds.

    >>> filled("Context: {hint}\n{question}", {"hint": "", "question": "what is {hint}?"})
    'what is {hint}?'
    """
    lines = template.split("\n")
    kept = [line for line in lines if all(values[name] for name in _FIELD.findall(line))]
    return "\n".join(_FIELD.sub(lambda found: values[found[1]], line) for line in kept)


def lettered(choices: Sequence[str]) -> list[str]:
    """A line an option, "A. red", as LLaVA is asked."""
    return [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
