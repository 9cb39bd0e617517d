"""One question after the other to an endpoint: kept answers, retries, and what each error means."""

import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from bench.errors import StoppedError, UsageError
from bench.models.victims.endpoint.cache import Cache, Kept
from bench.models.victims.endpoint.pace import Budget, Pace, Price
from bench.models.victims.endpoint.pixels import Picture
from bench.models.victims.endpoint.place import Place
from bench.models.victims.endpoint.replies import NoReplyError, Reply, Usage, read_reply
from tasks.base import Answer
from tasks.calls import DECLINED, EMPTY, ERROR, FILTERED, Call

KEY = "OPENAI_API_KEY"
SHORTEST_KEY = 8  # characters
LONGEST_PAUSE = 300.0  # seconds that a server may ask to wait
LONGEST_BACKOFF = 60.0
LARGEST_BODY = 10_000_000  # bytes of a response
MOST_FAILURES = 10  # calls in a row: the endpoint is away, or nothing can come of it
AGAIN = (408, 409, 425, 429)  # and 500 and above: asking again may help


class _CallError(Exception):
    """A request got no reply; ``again`` says whether another may."""

    def __init__(self, reason: str, *, again: bool, pause: float = 0.0, outcome: str = ERROR) -> None:
        super().__init__(reason)
        self.again, self.pause, self.outcome = again, pause, outcome


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        timeout: seconds a request may take.
        attempts: requests for one answer.
        backoff: seconds before the second.
    """

    timeout: float = 120.0
    attempts: int = 6
    backoff: float = 1.0


class Caller:
    """Asks an endpoint; one for all threads of a run. Nothing that it says or raises holds the key."""

    def __init__(
        self, place: Place, cache: Cache, pace: Pace, budget: Budget, patience: Patience, price: Price | None
    ) -> None:
        self.place, self.cache, self.pace, self.budget = place, cache, pace, budget
        self.patience, self.price = patience, price
        self.answers_as = place.settings.get("answers-as", place.model)
        self._client: Any = None
        self._lock = threading.Lock()
        self._failures = 0
        self._ended: UsageError | None = None

    def ask(self, picture: Picture, body: Mapping[str, Any], repetition: int) -> Answer:
        """The answer to one request body, kept or new.

        Raises:
            StoppedError: there is no use in going on now.
            UsageError: the endpoint takes no request at all, such as for want of a key.
        """
        path = self.cache.path(body, repetition)
        if (kept := self.cache.get(path)) is not None and kept.call.digest == picture.digest:
            return _answer(kept, cached=True)
        if self._ended is not None:
            raise self._ended
        try:
            return self._asked(picture, body, path)
        except UsageError as error:
            self._ended = error  # other threads are not to go on
            raise

    def _asked(self, picture: Picture, body: Mapping[str, Any], path: Path) -> Answer:
        """A new answer."""
        attempts = 0
        date = datetime.now(UTC).replace(microsecond=0)
        while True:
            attempts += 1
            self.pace.wait()
            with self.budget.request():
                began = time.monotonic()
                try:
                    reply = read_reply(self._send(body))
                except (_CallError, NoReplyError) as error:
                    failure = error if isinstance(error, _CallError) else _CallError(str(error), again=True)
                else:
                    call = self._call(picture, reply, date, attempts, time.monotonic() - began)
                    return self._keep(reply, call, path)
            if not failure.again or attempts >= self.patience.attempts:
                return self._given_up(picture, failure, date, attempts, time.monotonic() - began)
            self._pause(failure, attempts)

    def _call(self, picture: Picture, reply: Reply, date: datetime, attempts: int, latency: float) -> Call:
        return Call(
            outcome=reply.outcome if reply.model == self.answers_as else ERROR,  # type: ignore[arg-type]
            digest=picture.digest,
            pixels=picture.pixels,
            asked=self.place.model,
            date=date,
            answered=reply.model,
            fingerprint=reply.fingerprint,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.usage.prompt_tokens,
            completion_tokens=reply.usage.completion_tokens,
            cost=self._cost(reply.usage),
            attempts=attempts,
            latency=round(latency, 3),
        )

    def _keep(self, reply: Reply, call: Call, path: Path) -> Answer:
        """The answer that a reply is, once it is on the disk and paid for."""
        kept = Kept(reply.text, call)
        self.cache.put(path, kept)
        self.budget.pay(call.cost)
        answer = _answer(kept)
        self._count(answer.error if call.outcome in (ERROR, EMPTY) else None)
        return answer

    def _cost(self, usage: Usage) -> float | None:
        """What a call cost: as the provider says, else by price; None where that is not known."""
        cost = usage.cost
        if cost is None and self.price and usage.prompt_tokens is not None and usage.completion_tokens is not None:
            cost = self.price.of(usage.prompt_tokens, usage.completion_tokens)
        return cost if cost is not None and 0 <= cost < float("inf") else None

    def _count(self, failed: str | None) -> None:
        """Count calls in a row that failed; None for one that did not.

        Raises:
            StoppedError: they are too many.
        """
        with self._lock:
            self._failures = 0 if failed is None else self._failures + 1
            if self._failures >= MOST_FAILURES:
                raise StoppedError(
                    f"{self.place.url}: {self._failures} calls in a row failed, the last: {failed}. What was answered "
                    "is kept; the same command goes on from there"
                )

    def _given_up(self, picture: Picture, failure: _CallError, date: datetime, attempts: int, latency: float) -> Answer:
        """The error row of a call that got no reply."""
        reason = f"{failure} ({attempts} attempts)" if attempts > 1 else str(failure)
        self._count(reason if failure.outcome == ERROR else None)
        call = Call(
            outcome=failure.outcome,  # type: ignore[arg-type]
            digest=picture.digest,
            pixels=picture.pixels,
            asked=self.place.model,
            date=date,
            attempts=attempts,
            latency=round(latency, 3),
        )
        return Answer("", reason, call)

    def _pause(self, failure: _CallError, attempts: int) -> None:
        """Wait before the next attempt: as long as the server asks, else longer each time."""
        if failure.pause > LONGEST_PAUSE:
            raise StoppedError(
                f"{self.place.url} asks to wait {failure.pause:.0f} s. What was answered is kept; give the same "
                "command again then"
            )
        if failure.pause:
            self.pace.hold(failure.pause)
            return
        longest = min(LONGEST_BACKOFF, self.patience.backoff * 2 ** (attempts - 1))
        time.sleep(longest * random.uniform(0.5, 1.0))

    def _send(self, body: Mapping[str, Any]) -> str:
        """The text of the response to one request.

        Raises:
            _CallError: there is none.
            StoppedError: nothing more can be asked.
            UsageError: nothing can be asked.
        """
        import openai

        deadline = time.monotonic() + self.patience.timeout
        try:
            with self._connected().chat.completions.with_streaming_response.create(**body) as response:
                return self._hidden(_read(response, deadline))
        except openai.APIStatusError as error:
            failed = self._status(error)
        except openai.APITimeoutError:
            failed = _CallError(f"no response within {self.patience.timeout:g} s", again=True)
        except _transport_errors() as error:
            failed = _CallError(f"the connection failed: {self._hidden(str(error.__cause__ or error))}", again=True)
        raise failed  # here, not above: openai's errors hold the request, and with it the key

    def _status(self, error: Any) -> Exception:
        """What a response with an error's status means."""
        status, said = error.status_code, self._hidden(" ".join(str(error.message).split())[:300])
        said = said.removeprefix(f"Error code: {status} - ")
        code = str(error.code or "")
        if code == "content_filter":
            return _CallError(f"filtered: {said}", again=False, outcome=FILTERED)
        if status in (401, 403):
            whose = f"{KEY} is refused" if self._key() else f"it wants a key: set {KEY} in the environment"
            https = "" if self.place.may_see_key else "; keys are sent over https and to this machine only"
            return UsageError(f"{self.place.url}: {whose}{https} (HTTP {status}: {said})")
        if status == 404:
            where = f"{self.place.url} has no model {self.place.model!r}, or is not the API"
            return UsageError(f"{where} (HTTP 404: {said})")
        if code == "insufficient_quota":
            kept = "What was answered is kept; the same command goes on from there"
            return StoppedError(f"{self.place.url}: {said}. {kept}")
        again = status in AGAIN or status >= 500
        return _CallError(f"HTTP {status}: {said}", again=again, pause=_retry_after(error.response.headers))

    def _connected(self) -> Any:
        """The client, made when it is first needed."""
        with self._lock:
            if self._client is None:
                self._client = _client(self.place, self._key(), self.patience.timeout)
            return self._client

    def _key(self) -> str:
        return os.environ.get(KEY, "") if self.place.may_see_key else ""

    def _hidden(self, text: str) -> str:
        """Text from outside without the key; one as short as "none" is no secret, but may be an answer."""
        key = os.environ.get(KEY, "")
        return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text


def _client(place: Place, key: str, timeout: float) -> Any:
    try:
        import openai
    except ImportError as error:
        raise UsageError("endpoints need the openai library: pip install 'robust-vlm-bench[openai]'") from error
    return openai.OpenAI(base_url=place.url, api_key=key or "none", max_retries=0, timeout=timeout)


def _transport_errors() -> tuple[type[Exception], ...]:
    """Errors of openai, and of the HTTP library below it, which pass through openai while a body is read."""
    import openai

    below = [import_module(name).HTTPError for name in ("httpx", "httpx2") if find_spec(name) is not None]
    return (openai.OpenAIError, *below)


def _read(response: Any, deadline: float) -> str:
    """The body, which may come neither for ever nor without end."""
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if time.monotonic() > deadline:
            raise _CallError("the response did not end in time", again=True)
        if len(body) > LARGEST_BODY:
            raise _CallError("the response is too long", again=True)
    return body.decode("utf-8", "replace")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; 0 where it does not say."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        text = headers.get("retry-after") or ""
        if text.replace(".", "", 1).isdigit():
            return float(text)
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) if text else 0.0
    except (ValueError, TypeError):
        return 0.0


def _answer(kept: Kept, *, cached: bool = False) -> Answer:
    """An answer, or why there is none."""
    call = msgspec.structs.replace(kept.call, cached=True) if cached else kept.call
    if call.outcome in DECLINED:
        return Answer("", f"{call.outcome}: {kept.text}".rstrip(": "), call)
    if call.outcome == EMPTY:
        return Answer("", f"the answer is empty (finish reason {call.finish_reason})", call)
    if call.outcome == ERROR:
        return Answer(
            "",
            f"asked for {call.asked!r}, {call.answered!r} answered; name that model itself, or say ?answers-as=",
            call,
        )
    return Answer(kept.text, None, call)
