"""The balls in which a run attacks: norm, radii, and their order. Never imports torch."""

from collections.abc import Sequence

from bench import registry
from bench.config.radii import HOW_TO_WRITE, parse_eps
from bench.config.request import NO_ATTACK, Request
from bench.config.suite import Suite, preset
from bench.errors import UsageError
from bench.records.header import FLOORS
from tasks.protocol import ASCENDING, PROTOCOLS, RADII_ORDERS, default_radii_order


def ball(request: Request, suite: Suite) -> tuple[str, tuple[float, ...]]:
    """Norm and radii.

    Raises:
        UsageError: a radius is none, or must be given and is not.
    """
    norm = request.norm or suite.norm
    if request.eps:
        return norm, parse_eps(request.eps, norm)
    if norm != suite.norm:
        raise UsageError(f"the radii of suite {suite.name!r} are for {suite.norm}; give --eps, {HOW_TO_WRITE[norm]}")
    return norm, suite.eps


def check_radii_order(request: Request) -> None:
    """Refuse an order of radii that there is not, or that the protocol has no use for.

    Raises:
        UsageError: names the option and the remedy.
    """
    order = request.radii_order
    if order is not None and order not in RADII_ORDERS:
        raise registry.unknown("order of radii", order, RADII_ORDERS)
    if order not in (None, ASCENDING) and not PROTOCOLS[request.protocol].cumulative_radii:
        raise UsageError(f"--protocol {request.protocol} attacks every radius by itself: leave --radii-order out")


def radii_order(
    request: Request, suite: Suite, task: str, attack: str, radii: Sequence[float], *, on_itself: bool
) -> str | None:
    """The order of one run; None where a radius tells nothing of another.

    Args:
        request: as it was made.
        suite: of the run.
        task: its name.
        attack: its name.
        radii: of the run.
        on_itself: whether images are made on the victim itself.
    """
    if len(radii) < 2 or not on_itself or request.images is not None or attack == NO_ATTACK:
        return None
    if not PROTOCOLS[request.protocol].cumulative_radii:
        return None
    if all(step.kind in FLOORS for step in preset(attack, suite).steps):
        return None
    return request.radii_order or default_radii_order(task)
