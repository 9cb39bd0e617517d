"""What is asked and would be done by no run is refused: an option that is dropped in silence misleads."""

from collections.abc import Iterable

from bench.config.request import NATIVE, NO_ATTACK, Request, flag
from bench.config.victims import asks_victims
from bench.errors import UsageError


def check_asked(request: Request, tasks: Iterable[str]) -> None:
    """Refuse options that none of the runs has a use for.

    Args:
        request: as a user made it; one that a finished run's header makes may say more than its task takes.
        tasks: those of its runs.

    Raises:
        UsageError: there is such an option; names it.
    """
    given = [name for name in ("vlm", "shots", "image_size") if getattr(request, name) not in (None, ())]
    given += ["tower"] if request.tower == NATIVE and request.encoder else []
    if given and not any(map(asks_victims, tasks)):
        names = ", ".join(dict.fromkeys(tasks))
        raise UsageError(f"{flag(given[0])}: task {names} asks no vision-language model; leave it out")
    made_on = request.surrogate or request.surrogate_vlm
    if made_on and request.attack == NO_ATTACK:
        raise UsageError("--attack none makes no images, so that --surrogate has no use; leave one of them out")
