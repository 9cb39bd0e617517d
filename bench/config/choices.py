"""What of a request is refused: words that mean nothing, and options that no run has a use for. Never imports torch."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench import registry
from bench.config.ball import check_radii_order
from bench.config.black_box import asks_endpoints
from bench.config.naming import known_encoders
from bench.config.radii import NORMS
from bench.config.request import NATIVE, NO_ATTACK, Request, flag
from bench.config.suite import Suite, load_suite
from bench.config.victims import asks_victims
from bench.errors import UsageError
from tasks.protocol import ASCENDING, PROTOCOLS

if TYPE_CHECKING:
    from bench.config.run_config import RunConfig

PRECISIONS = ("float32", "bf16", "fp16")
TOWERS = ("encoder", NATIVE)
OF_ATTACKS = (
    "surrogate",
    "surrogate_vlm",
    "eps",
    "norm",
    "precision",
    "radii_order",
)  # options that a clean run has no use for


def check_choices(request: Request, suite: Suite) -> None:
    """Refuse words that are none of the few that an option takes, and an option that must be there."""
    for name, known in (("protocol", tuple(PROTOCOLS)), ("precision", PRECISIONS), ("tower", TOWERS), ("norm", NORMS)):
        value = getattr(request, name)
        if value is not None and value not in known:
            raise registry.unknown(name, value, known)
    check_radii_order(request)
    for name in ("task",) if request.tower == NATIVE else ("encoder", "task"):
        if not getattr(request, name):
            raise UsageError(f"give {flag(name)}, or --all for every run behind the suite's tables")
    for name in ("shots", "image_size"):
        if getattr(request, name) is not None and request.surrogate_vlm:
            raise UsageError(
                f"{flag(name)} does not say of which model: write --vlm 'NAME?{name}=N' and --surrogate-vlm likewise"
            )
    for one in request.defence:
        if (name := one.partition("?")[0]) not in registry.names("bench.defences"):
            raise registry.unknown("defence", name, registry.names("bench.defences"))
    if request.defence and request.surrogate:
        raise UsageError("--defence attacks by the adaptive protocol, transfer included: leave --surrogate out")
    if request.defence and (request.precision or "float32") != "float32":
        raise UsageError("--defence computes in float32 throughout: leave --precision out")
    if request.judge and (name := request.judge.partition("?")[0]) not in registry.names("bench.judges"):
        raise registry.unknown("judge", name, registry.names("bench.judges"))
    if request.tower == NATIVE and request.surrogate and not asks_endpoints(request, suite):
        raise UsageError("--surrogate puts another encoder into the model, --tower native none: leave one of them out")


def check_judge(request: Request, tasks: Iterable[str]) -> None:
    """Refuse a judge where nothing is judged; imports torch where there is one.

    Raises:
        UsageError: no task asked for has a judge.
    """
    if request.judge and not any(registry.attribute("bench.tasks", task, "judge") for task in tasks):
        raise UsageError(
            f"--judge is for keywords, target-text and target-caption, not {', '.join(tasks)}: leave it out"
        )


def check_asked(request: Request, configs: Sequence["RunConfig"]) -> None:
    """Refuse options that none of the runs has a use for.

    Args:
        request: as a user made it; one that a finished run's header makes may say more than its runs take.
        configs: its runs.

    Raises:
        UsageError: there is such an option; names it.
    """
    _check_victims(request, [config.task for config in configs])
    _check_unattacked(request, configs)
    known = known_encoders(load_suite(request.suite))
    if request.arch and all(name in known for config in configs for name in (config.encoder, *config.surrogates)):
        raise UsageError(
            "--arch says what a checkpoint's file or folder holds, and no encoder is given as a path: leave it out"
        )


def _check_victims(request: Request, tasks: Iterable[str]) -> None:
    given = [name for name in ("vlm", "shots", "image_size") if getattr(request, name) not in (None, ())]
    given += ["tower"] if request.tower == NATIVE and request.encoder else []
    if given and not any(map(asks_victims, tasks)):
        names = ", ".join(dict.fromkeys(tasks))
        raise UsageError(f"{flag(given[0])}: task {names} asks no vision-language model; leave it out")


def _check_unattacked(request: Request, configs: Sequence["RunConfig"]) -> None:
    given = [name for name in OF_ATTACKS if getattr(request, name) not in (None, ())]
    if given and all(config.attack == NO_ATTACK for config in configs):
        names = ", ".join(map(flag, given))
        raise UsageError(f"{names}: attack 'none' makes no images; leave that out, or choose an attack with --attack")
    made_elsewhere = request.surrogate or request.surrogate_vlm or request.images
    if made_elsewhere and request.radii_order not in (None, ASCENDING):
        raise UsageError(
            "--radii-order is for attacks on the victim itself: images made elsewhere tell nothing of smaller radii; "
            "leave it out"
        )
