"""Where people keep their results: TensorBoard, Weights & Biases, MLflow, behind one door.

``--log-to NAME:PLACE?option=value`` names a sink. A third party adds one by an entry point of the group "bench.sinks"
that names a class like `base.Sink`.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from tqdm import tqdm

from bench import registry
from bench.errors import UsageError
from bench.sinks.base import LOGIN, Sink, Subject, without_secrets
from bench.trust.text import on_one_line

GROUP = "bench.sinks"
_METHODS = ("begin", "log", "close")


def make_sink(spec: str) -> Sink:
    """The sink that a specification names, with its place and options.

    Raises:
        UsageError: an unknown sink or option, a package that is missing, or a place that holds a password.
    """
    name, place, options = _parsed(spec)
    if name not in registry.names(GROUP):
        raise registry.unknown("sink", name, registry.names(GROUP))
    found: Any = registry.resolve(GROUP, name)
    methods = registry.examined(GROUP, name, lambda: [getattr(found, method, None) for method in _METHODS])
    if not inspect.isclass(found) or not all(map(callable, methods)):
        raise registry.broken(GROUP, name, f"it is no class with {', '.join(_METHODS)}; see bench.sinks.base")
    known = registry.examined(GROUP, name, lambda: list(inspect.signature(found).parameters))[1:]
    for option in options:
        if option not in known:
            raise registry.unknown(f"option of --log-to {name}", option, known or ["none"])
    return cast(Sink, registry.made(GROUP, name, object, place, **options))


def check(specs: Sequence[str]) -> None:
    """See now whether each sink can be made, and not after hours of computing; errors as of `make_sink`."""
    for spec in specs:
        make_sink(spec)


class Followed:
    """A run or a training that sinks follow. One that fails is named in a warning and left out; nothing else ends.

    Args:
        subject: what the numbers are of.
        sinks: by what the warning calls them.
    """

    def __init__(self, subject: Subject, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)
        self._each("begin", subject)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers of one step."""
        self._each("log", step, numbers)

    def close(self) -> None:
        """Let every sink write what it holds."""
        self._each("close")

    def _each(self, method: str, *arguments: object) -> None:
        for spec, sink in list(self._sinks.items()):
            try:
                getattr(sink, method)(*arguments)
            except Exception as error:  # whatever another's package or server raises: the run goes on
                del self._sinks[spec]
                what = on_one_line(without_secrets(f"{type(error).__name__}: {error}"))
                tqdm.write(f"warning: the sink {spec} failed and is left out from here on: {what}", file=sys.stderr)


def follow(subject: Subject, specs: Sequence[str]) -> Followed:
    """Begin to send what becomes of a subject to the sinks that are named; errors as of `make_sink`."""
    return Followed(subject, {spec: make_sink(spec) for spec in specs})


def _parsed(spec: str) -> tuple[str, str, dict[str, str]]:
    where, _, query = spec.partition("?")
    name, _, place = where.partition(":")
    if LOGIN.search(place):
        raise UsageError(
            f"--log-to {name}: the place is written into every result, so that it must hold no user or password: put "
            "them into the environment, such as MLFLOW_TRACKING_URI or MLFLOW_TRACKING_PASSWORD"
        )
    return name, place, registry.options(query, f"--log-to {name}")
