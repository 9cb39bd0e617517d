"""Images that an attack made elsewhere: what may be asked of them. Never imports torch."""

import re

from attacks.presets import BROUGHT, PRESETS, AttackStep
from bench.config.request import Request
from bench.errors import UsageError

STEPS = (AttackStep(BROUGHT, BROUGHT, 1, BROUGHT, "clean", 0.0),)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_brought(request: Request) -> None:
    """Refuse what makes no sense beside images that are made already.

    Raises:
        UsageError: names the option and the remedy.
    """
    if request.images is None:
        return
    name = request.attack or BROUGHT
    if name == "none" or name in PRESETS:
        raise UsageError(
            f"the attack of these images cannot be called {name!r}, which means another; give another name"
        )
    if not _NAME.fullmatch(name):
        raise UsageError(f"the attack's name holds letters, digits, '.', '_' and '-' only, not {name!r}")
    if request.surrogate:
        raise UsageError("--surrogate makes images, and these are made already: leave it out")


def check_one_radius(radii: tuple[float, ...]) -> None:
    """Refuse several radii: a folder of images is certified against one threat model.

    Raises:
        UsageError: there are several.
    """
    if len(radii) != 1:
        listed = ", ".join(f"{radius:g}" for radius in radii)
        raise UsageError(f"images are certified against one radius, not {listed}: give --eps with the attack's own")
