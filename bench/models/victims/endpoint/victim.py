"""A model behind an endpoint, as a victim."""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Never

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from bench.errors import UsageError
from bench.models.encoders.pixels import Preprocessing
from bench.models.victims.endpoint.cache import Cache
from bench.models.victims.endpoint.caller import Caller, Patience
from bench.models.victims.endpoint.pace import Budget, Pace, Price
from bench.models.victims.endpoint.pixels import Picture, picture
from bench.models.victims.endpoint.place import SETTINGS, Place
from tasks.base import Answer

CONCURRENCY = 4
BLACK_BOX = (
    "an endpoint gives no gradients: bring images (`bench score`), make them on an encoder with --surrogate and an "
    "attack that needs no task (--attack embedding), or ask it unattacked with --attack none"
)


def load_endpoint(place: Place, settings: Mapping[str, str]) -> "Endpoint":
    """The victim at an endpoint; nothing is sent yet.

    Args:
        place: where.
        settings: of `family.PACE`, and of `place.SETTINGS`; those of the place itself count first.

    Raises:
        UsageError: a setting is no number, or a limit of cost has no price.
    """
    chosen = {name: value for name, value in settings.items() if name in SETTINGS} | dict(place.settings)
    place = Place(place.url, place.model, chosen)
    numbers = {name: _number(name, settings[name]) for name in ("rpm", "concurrency", "max-cost") if name in settings}
    price = Price.parse(settings["price"]) if "price" in settings else None
    if "max-cost" in numbers and price is None:
        raise UsageError("--max-cost needs the price of a million tokens: --price IN,OUT, such as 2.5,10")
    patience = Patience(
        timeout=_number("timeout", chosen.get("timeout", str(Patience.timeout))),
        attempts=int(_number("attempts", chosen.get("attempts", str(Patience.attempts)))),
        backoff=_number("backoff", chosen.get("backoff", str(Patience.backoff))),
    )
    cache = Cache(Path(settings.get("cache", "endpoint-cache")), place.url, place.model)
    caller = Caller(place, cache, Pace(numbers.get("rpm")), Budget(numbers.get("max-cost")), patience, price)
    return Endpoint(caller, int(numbers.get("concurrency", CONCURRENCY)))


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{name} of an endpoint must be a number above 0, not {text!r}")
    return value


class Blind:
    """The encoder of a model whose encoder nobody sees."""

    def __call__(self, images: Tensor) -> Never:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError(BLACK_BOX)

    patch_tokens = __call__


class Endpoint:
    """See `bench.models.victims.loaded.LoadedVictim`; only its answers are there to be had."""

    def __init__(self, caller: Caller, concurrency: int) -> None:
        self.caller, self.concurrency = caller, concurrency
        self.settings: Mapping[str, str] = caller.place.settings
        self.enlarge = int(_number("enlarge", self.settings.get("enlarge", "1")))
        self.tokens = int(_number("tokens", self.settings["tokens"])) if "tokens" in self.settings else None
        self.device, self.encoder = torch.device("cpu"), Blind()
        self.repetition = 0

    def again(self, repetition: int) -> "Endpoint":
        """The same victim asked another time: answers that are kept for the first time do not count."""
        twin = copy.copy(self)
        twin.repetition = repetition
        return twin

    def digests(self) -> dict[str, str]:
        """Nothing is known of its weights."""
        return {}

    def make_room(self, batch: int | None) -> str:
        """It needs none here."""
        return "an endpoint needs no memory here"

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1], exact in 8 bits: the picture as it is, or of the size that was chosen."""
        if "size" in self.settings:
            return Preprocessing(int(_number("size", self.settings["size"])), (0, 0, 0), (1, 1, 1))(image)
        pixels: Tensor = to_tensor(image.convert("RGB"))
        return pixels

    def at(self, precision: str) -> "Endpoint":
        """Itself: how it computes is its own affair."""
        return self

    def token_texts(self) -> list[str | None]:
        """Its vocabulary is not known."""
        return []

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> Never:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError(BLACK_BOX)

    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[Answer]:
        """Its answers to B images (B, 3, H, W), so many asked at once.

        Raises:
            StoppedError: there is no use in going on; the answers that came are kept.
            UsageError: it takes no request.
        """
        pictures = [picture(image, self.enlarge) for image in images]
        bodies = [self.body(p, prompt, max_new_tokens) for p, prompt in zip(pictures, prompts, strict=True)]
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            calls = [pool.submit(self.caller.ask, p, b, self.repetition) for p, b in zip(pictures, bodies, strict=True)]
            return [call.result() for call in calls]
        finally:
            pool.shutdown(cancel_futures=True)

    def body(self, shown: Picture, prompt: str, max_new_tokens: int) -> dict[str, Any]:
        """One request: the image, then the prompt."""
        url = {"url": f"data:image/png;base64,{shown.base64}"}
        if "detail" in self.settings:
            url["detail"] = self.settings["detail"]
        content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": str(prompt)}]
        body: dict[str, Any] = {
            "model": self.caller.place.model,
            "messages": [{"role": "user", "content": content}],
            self.settings.get("limit", "max_tokens"): self.tokens or max_new_tokens,
        }
        for name, kind in (("temperature", float), ("seed", int)):
            if (text := self.settings.get(name, "0")) != "none":
                body[name] = _sampling(name, kind, text)
        return body


def _sampling(name: str, kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{name} of an endpoint must be a number or 'none', not {text!r}") from None
