"""What is known of one call to a model behind an endpoint, stored with its answer. Never imports torch."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

ANSWER, REFUSAL, FILTERED, EMPTY, ERROR = "answer", "refusal", "filtered", "empty", "error"
DECLINED = (REFUSAL, FILTERED)  # outcomes of their own: neither right nor wrong, and not asked again


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call. Keys that are not known here, which a later version may write, are ignored.

    Attributes:
        outcome: what came of it.
        digest: sha256 of the PNG file that was sent.
        pixels: sha256 of its pixels, (height, width, 3) bytes, as they were before they were enlarged.
        asked: the model that was asked for.
        date: when it was asked.
        answered: the model that says it answered.
        fingerprint: what the provider says of its own configuration.
        finish_reason: why the answer ends, in the provider's word.
        prompt_tokens: as counted by the provider.
        completion_tokens: as counted by the provider.
        cost: in the currency of the price; None where price or usage is not known.
        attempts: requests that were sent for it.
        latency: seconds of the last request.
        cached: whether the answer was taken from the cache; the rest is of the call that was made.
        version: of this format.
    """

    outcome: Literal["answer", "refusal", "filtered", "empty", "error"]
    digest: str
    pixels: str
    asked: str
    date: Annotated[datetime, msgspec.Meta(tz=True)]
    answered: str | None = None
    fingerprint: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    attempts: int = 1
    latency: float = 0.0
    cached: bool = False
    version: int = 1


class Repeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The same clean image asked once more.

    Attributes:
        prediction: the answer, as it was scored; empty where the model declined.
        score: on the metric's scale; None where the model declined.
    """

    prediction: str
    score: float | None
    call: Call
