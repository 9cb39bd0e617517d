"""What is asked and would be done by no run is refused: an option that is dropped in silence misleads."""

from collections.abc import Iterable

from bench.config.request import NATIVE, NO_ATTACK, Request, flag
from bench.config.victims import asks_victims
from bench.errors import UsageError


def check_asked(request: Request, tasks: Iterable[str]) -> None:
    """Refuse options that none of the runs has a use for.

    Raises:
        UsageError: there is such an option; names it.
    """
    options = ("surrogate_vlm", "vlm", "shots", "image_size")
    given = [name for name in options if getattr(request, name) not in (None, ())]
    given += ["tower"] if request.tower == NATIVE and request.encoder else []
    if given and not any(map(asks_victims, tasks)):
        instead = "; use --surrogate" if given[0] == "surrogate_vlm" else "; leave it out"
        raise UsageError(f"{flag(given[0])}: task {', '.join(tasks)} asks no vision-language model{instead}")
    made_on = request.surrogate or request.surrogate_vlm
    if made_on and request.attack == NO_ATTACK:
        raise UsageError("--attack none makes no images, so that --surrogate has no use; leave one of them out")
