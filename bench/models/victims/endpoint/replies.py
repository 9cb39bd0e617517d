"""What an endpoint sent back: whether it is a reply at all, and what it says."""

import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from tasks.calls import ANSWER, EMPTY, FILTERED, REFUSAL

_REFUSAL = re.compile(
    r"(?:(?:i['’]?m|i am)? ?sorry|unfortunately)?[,.]? ?(?:but )?(?:as an ai[^,.]*, )?"
    r"i(?: can['’]?t| cannot| can not| won['’]t|(?: am|['’]?m) (?:unable|not able) to) "
    r"(?:assist|help|comply|fulfil|fulfill|provide|identify|discuss|do that|process|continue|engage|support)\b"
    r"|i['’]?m sorry,? but i (?:can['’]?t|cannot)\b|i (?:must|have to) (?:decline|refuse)\b",
    re.IGNORECASE,
)


class NoReplyError(Exception):
    """What came back is no reply; asking again may help."""


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """What a call took, as far as the provider says."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


class _Completion(msgspec.Struct):
    model: str
    choices: list[_Choice]
    system_fingerprint: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Reply:
    """A reply.

    Attributes:
        outcome: of `tasks.calls`, "error" aside.
        text: what the model said, of an answer or a refusal.
    """

    outcome: str
    text: str
    model: str
    fingerprint: str | None
    finish_reason: str | None
    usage: Usage


def read_reply(body: str) -> Reply:
    """The reply in the body of a response.

    Raises:
        NoReplyError: it is none: cut short, a web page, an error in disguise.
    """
    try:
        found = msgspec.convert(json.loads(body), _Completion)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise NoReplyError(f"the response is no chat completion ({_said(body, error)})") from error
    if not found.choices:
        raise NoReplyError("the response has no choices")
    choice = found.choices[0]
    text = _text(choice.message.content).strip()
    return Reply(
        outcome=_outcome(choice, text),
        text=text or (choice.message.refusal or "").strip(),
        model=found.model,
        fingerprint=found.system_fingerprint,
        finish_reason=choice.finish_reason,
        usage=found.usage or Usage(),
    )


def _outcome(choice: _Choice, text: str) -> str:
    if choice.finish_reason == "content_filter":
        return FILTERED
    if choice.message.refusal or is_refusal(text):
        return REFUSAL
    return ANSWER if text else EMPTY


def is_refusal(text: str) -> bool:
    """Whether a text begins as models do that decline to answer.

    >>> is_refusal("I'm sorry, but I can't assist with that."), is_refusal("I can't tell")
    (True, False)
    """
    return _REFUSAL.match(text.strip()) is not None


def _text(content: str | list[dict[str, Any]] | None) -> str:
    parts = [str(part.get("text") or "") for part in content] if isinstance(content, list) else [content or ""]
    return "".join(parts).encode("utf-8", "replace").decode()  # halves of surrogate pairs cannot be written


def _said(body: str, error: Exception) -> str:
    if body.lstrip()[:1] == "<":
        return "it is a web page"
    return " ".join(str(error).split())[:200]
