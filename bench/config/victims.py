"""Which victims a request is about: those that are scored, and those that the images are made on."""

from bench import registry
from bench.config.naming import placed
from bench.config.request import Request, flag
from bench.config.suite import Suite
from bench.errors import UsageError
from bench.models.victims import specs
from bench.models.victims.specs import VictimSpec

Pair = tuple[str | None, str | None]  # the victim that is scored, and the one that the images are made on


def victim_pairs(task: str, request: Request, suite: Suite) -> list[Pair]:
    """Every victim with every other victim that images come from; None for the suite's, and for no other."""
    if (len(request.vlm) > 1 or request.surrogate_vlm) and not asks_victims(task):
        return [(None, None)]
    victims = [_victim(name, request, suite) for name in request.vlm] or [_victim(suite.vlm, request, suite)]
    sources = [specs.parse(name) for name in request.surrogate_vlm]
    found: list[Pair] = []
    for victim in victims:
        shown = None if victim.identity == specs.parse(suite.vlm).identity else str(victim)
        found += [(shown, str(_placed(source))) for source in sources] or [(shown, None)]
    return found


def asks_victims(task: str) -> bool:
    """Whether a task asks vision-language models, not encoders; imports torch."""
    return bool(registry.attribute("bench.tasks", task, "model") == "vlm")


def _victim(name: str, request: Request, suite: Suite) -> VictimSpec:
    """A victim as it was named, with the settings that have options of their own."""
    spec = _placed(specs.parse(name))
    asked = {option: getattr(request, option) for option in ("shots", "image_size")}
    settings = dict(spec.settings)
    for option, value in asked.items():
        if value is not None and settings.setdefault(option, str(value)) != str(value):
            raise UsageError(f"--vlm {name} and {flag(option)} {value} contradict each other; leave one of them out")
    return VictimSpec(spec.name, settings)


def _placed(spec: VictimSpec) -> VictimSpec:
    return VictimSpec(placed(spec.name), spec.settings)
