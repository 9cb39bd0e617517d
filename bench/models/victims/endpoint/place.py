"""How an endpoint is named: URL#MODEL, and settings behind a question mark. Never imports torch."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench import registry
from bench.errors import UsageError
from bench.models.victims.family import Setting

HOW_TO_NAME = "name it as openai:URL#MODEL, such as openai:http://127.0.0.1:8000/v1#my-model"
SETTINGS: Mapping[str, Setting] = {
    "size": Setting("images are resized and cropped to squares of so many pixels; by default they stay as they are"),
    "enlarge": Setting("each pixel becomes a square of so many a side before the image is sent (nearest neighbour)"),
    "detail": Setting("how closely the provider is asked to look", ("auto", "low", "high")),
    "temperature": Setting("of sampling; 0 by default, 'none' leaves it out"),
    "seed": Setting("of sampling; 0 by default, 'none' leaves it out"),
    "tokens": Setting("tokens that an answer may have; by default as many as the dataset says"),
    "limit": Setting("the field that limits an answer", ("max_tokens", "max_completion_tokens")),
    "answers-as": Setting("the name under which the model answers, where that is another than it is asked by"),
    "timeout": Setting("seconds that one request may take, to its last byte; 120 by default"),
    "attempts": Setting("requests at most for one answer; 6 by default"),
    "backoff": Setting("seconds before the second request, doubled before each further one; 1 by default"),
}


@dataclass(frozen=True)
class Place:
    """An endpoint.

    Attributes:
        url: of the API, such as http://127.0.0.1:8000/v1.
        model: as it is asked for.
        settings: behind the question mark.
    """

    url: str
    model: str
    settings: Mapping[str, str]

    @property
    def may_see_key(self) -> bool:
        """Whether a key can be sent there without others reading it: over https, or to this machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" or _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse(text: str) -> Place:
    """Read URL#MODEL?name=value&name=value.

    Raises:
        UsageError: it is no such thing, or holds what must not be written down.
    """
    url, _, rest = text.partition("#")
    model, _, query = rest.partition("?")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(f"endpoint {url!r}: {error}; {HOW_TO_NAME}") from error
    if parts.username or parts.password or parts.query:
        raise UsageError(
            "an endpoint's address is written into every result, so that it must hold neither a password nor anything "
            "behind a '?': put the key into the environment, as OPENAI_API_KEY"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"endpoint {url!r} is no address; {HOW_TO_NAME}")
    if not model:
        raise UsageError(f"endpoint {url!r} lacks its model; {HOW_TO_NAME}")
    settings = registry.options(query, f"endpoint {url!r}")
    for name, value in settings.items():
        if name not in SETTINGS:
            raise registry.unknown("setting of an endpoint", name, SETTINGS)
        if (choices := SETTINGS[name].choices) and value not in choices:
            raise registry.unknown(name, value, choices)
    return Place(url.rstrip("/"), model, settings)
