"""Victims that are asked over the network: what may be asked of them. Never imports torch."""

from dataclasses import replace

from bench.config.request import NATIVE, NO_ATTACK, Request, flag
from bench.config.suite import Suite
from bench.errors import UsageError
from bench.models.victims import specs
from bench.models.victims.catalogue import place_of
from bench.models.victims.load import is_black_box

PACE = ("repeats", "rpm", "concurrency", "max_cost", "price")  # options that only an endpoint has


def asks_endpoints(request: Request, suite: Suite) -> bool:
    """Whether the victims are endpoints.

    Raises:
        UsageError: some are, and some are not.
    """
    kinds = {is_black_box(place_of(specs.parse(name).name)) for name in request.vlm or (suite.vlm,)}
    if len(kinds) > 1:
        raise UsageError("--vlm names an endpoint beside a model on this machine: give each a command of its own")
    return kinds == {True}


def as_black_box(request: Request, suite: Suite) -> Request:
    """The request with what follows from a victim that shows its answers only; other requests as they are.

    Raises:
        UsageError: it asks for what an endpoint cannot give, or gives a local model an endpoint's options.
    """
    if not asks_endpoints(request, suite):
        if given := [name for name in PACE if getattr(request, name) is not None]:
            raise UsageError(f"{flag(given[0])} is for endpoints, such as --vlm openai:URL#MODEL: leave it out")
        return request
    if request.encoder not in ((), (NATIVE,)):
        raise UsageError("an endpoint looks through its own eyes: leave out --encoder")
    if request.images is None and request.attack != NO_ATTACK and not (request.surrogate or request.surrogate_vlm):
        raise UsageError(
            "an endpoint gives no gradients: bring images (`bench score IMAGES`), make them on an encoder (--surrogate "
            "ENCODER --attack embedding), or ask it unattacked (--attack none)"
        )
    return replace(request, tower=NATIVE, precision="float32")
