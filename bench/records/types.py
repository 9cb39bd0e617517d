"""One record, and how it becomes JSON. Nothing here opens a file."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import msgspec

from bench.records.files import RecordsError
from tasks.calls import DECLINED, Call, Repeat

SCHEMA_VERSION = 2
CLEAN = "clean"
MOST = 2**53  # of what is counted: integers up to here are floats
DEEPEST = 50  # levels of lists and objects
TOO_DEEP = f"lists and objects are nested deeper than {DEEPEST} levels"
Key = tuple[str, str, float]
_NUMBERS = ("radius", "distance", "seconds", "score", "loss", "png_score", "screen")
_LISTS = ("loss_curve", "draws")
_MAYBE_ABSENT = ("score", "loss", "png_score", "screen")
# Keys that a line has only where there is a value:
_OPTIONAL = ("png_score", "loss_curve", "call", "repeats", "draws", "screen")
_FORMER = {"eps_255": "radius", "distance_255": "distance", "course": "loss_curve"}  # names in schema version 1
_DROPPED = ("flags",)  # of schema version 1, where it was always empty


def encode(value: Any) -> Any:
    """JSON data for `value`; NaN and infinities become the strings "nan", "inf", "-inf", never null or 0."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def number(value: Any) -> float:
    """The float that `encode` wrote."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
        raise RecordsError("a number is too large")
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    raise RecordsError(f"{value!r} is not a number")


def _are_floats(values: Any) -> bool:
    return type(values) is tuple and all(type(value) is float for value in values)


def _is_mean(score: float, draws: tuple[float, ...]) -> bool:
    return bool(draws) and math.isclose(score, math.fsum(draws) / len(draws), rel_tol=1e-9, abs_tol=1e-9)


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether data has more than so many levels of lists and objects."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def parse_object(
    text: str | bytes, known: Iterable[str], optional: Iterable[str], former: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON object in `text`, which must have exactly the keys `known`; those in `optional` may be absent.

    Keys under their names of schema version 1 count as those of today.
    """

    def refuse(constant: str) -> None:
        raise RecordsError(f'bare {constant} in JSON; it is written as the string "nan", "inf" or "-inf"')

    try:
        data = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise RecordsError(f"not JSON ({error})") from error
    except RecursionError as error:
        raise RecordsError(TOO_DEEP) from error
    if _is_deeper(data, DEEPEST):
        raise RecordsError(TOO_DEEP)
    if not isinstance(data, dict):
        raise RecordsError(f"not a JSON object but a {type(data).__name__}")
    if not former.keys().isdisjoint(data):
        data = {former.get(key, key): value for key, value in data.items() if key not in _DROPPED}
    known = set(known)
    if unknown := sorted(data.keys() - known):
        raise RecordsError(f"unknown key {', '.join(unknown)} (written by a newer version?)")
    if missing := sorted(known - data.keys() - set(optional)):
        raise RecordsError(f"missing key {', '.join(missing)}")
    return data


def _typed(value: Any, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise RecordsError(f"{name}: {error}") from error


class Record(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What one step did to one sample.

    Attributes:
        sample_id: The sample, unique within the dataset.
        group: What to cluster by in statistics: the image id.
        step: "clean", or the name of the attack step, such as "apgd-ce" or "reference-0".
        radius: In 1/255 of the pixel range for l-inf, in plain units for l2; 0.0 for clean.
        prediction: The model's answer, as it was scored.
        score: On the metric's published scale (percent, or CIDEr x 100); None only with an error.
        loss: The objective's value; may be NaN or infinite.
        distance: Distance to the clean image, in the unit of `radius`.
        evaluations: Gradient evaluations spent.
        error: Why there is no score; None if there is one.
        seconds: Wall-clock time, shared evenly over the batch.
        png_score: Score of the adversarial image after a round trip through an 8-bit PNG; None if not asked for.
        loss_curve: The highest loss among the first 1, 2, 4, 8, ... images that the attack tried; None where it was
            not watched.
        call: What is known of the call, of a victim behind an endpoint.
        repeats: The same clean image asked again, where that was wanted.
        draws: Scores of the fresh draws of a randomised victim, of which `score` is the mean; None where nothing is
            drawn.
        screen: Mean score over other draws, by which the worst attack is chosen: the least of several means over the
            same draws would be too low.

    Raises:
        RecordsError: If a field has another type than is written here or a value that cannot be, or the score is
            absent or not finite although no error is given: a NaN is neither robust nor a success.
    """

    sample_id: str
    group: str
    step: str
    radius: float
    prediction: str
    score: float | None
    loss: float | None
    distance: float
    evaluations: int
    error: str | None
    seconds: float
    png_score: float | None = None
    loss_curve: tuple[float, ...] | None = None
    call: Call | None = None
    repeats: tuple[Repeat, ...] | None = None
    draws: tuple[float, ...] | None = None
    screen: float | None = None

    def __post_init__(self) -> None:
        if not self._has_plain_types():
            self._check_types()
        if not 0 <= self.radius < math.inf or (self.step == CLEAN and self.radius != 0):
            raise RecordsError(f"radius is {self.radius} in step {self.step!r}; clean is 0, an attack >= 0")
        if self.error is None and (self.score is None or not math.isfinite(self.score)):
            raise RecordsError(f"score is {self.score} for sample {self.sample_id!r} without an error")
        if self.error is None and not 0 <= self.distance < math.inf:
            raise RecordsError(f"distance is {self.distance} for sample {self.sample_id!r}; it must be finite and >= 0")
        if not 0 <= self.seconds < math.inf:
            raise RecordsError(f"seconds is {self.seconds} for sample {self.sample_id!r}; it must be finite and >= 0")

    def _has_plain_types(self) -> bool:
        """Whether there is nothing to complain of: quick, for it is asked of every record that is read."""
        return (
            type(self.sample_id) is type(self.group) is type(self.step) is type(self.prediction) is str
            and type(self.radius) is type(self.distance) is type(self.seconds) is float
            and (self.score is None or type(self.score) is float)
            and (self.loss is None or type(self.loss) is float)
            and (self.png_score is None or type(self.png_score) is float)
            and type(self.evaluations) is int
            and 0 <= self.evaluations < MOST
            and self.error is None
            and (self.loss_curve is None or _are_floats(self.loss_curve))
            and self.call is None
            and self.repeats is None
            and self.draws is None
            and self.screen is None
        )

    def _check_types(self) -> None:
        for name in ("sample_id", "group", "step", "prediction"):
            if not isinstance(getattr(self, name), str):
                raise RecordsError(f"{name} must be a string, not {getattr(self, name)!r}")
        for name in _NUMBERS:
            value = getattr(self, name)
            absent = value is None and name in _MAYBE_ABSENT
            if not absent and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise RecordsError(f"{name} must be a number, not {value!r}")
        if type(self.evaluations) is not int or not 0 <= self.evaluations < MOST:
            raise RecordsError(f"evaluations must be a count, not {self.evaluations!r}")
        if not (self.error is None or isinstance(self.error, str)):
            raise RecordsError(f"error must be a string or None, not {self.error!r}")
        for name in _LISTS:
            if not ((value := getattr(self, name)) is None or _are_floats(value)):
                raise RecordsError(f"{name} must be a tuple of numbers or None, not {value!r}")
        if self.draws is not None and self.score is not None and not _is_mean(self.score, self.draws):
            raise RecordsError(f"score is {self.score}, which is not the mean of the draws {self.draws}")
        if not (self.call is None or isinstance(self.call, Call)):
            raise RecordsError(f"call must be a Call or None, not {self.call!r}")
        if not (self.repeats is None or all(isinstance(one, Repeat) for one in self.repeats)):
            raise RecordsError(f"repeats must be a tuple of Repeat or None, not {self.repeats!r}")

    @property
    def declined(self) -> bool:
        """Whether the model refused or its provider filtered: no score, and no failure either."""
        return self.call is not None and self.call.outcome in DECLINED

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do: there is a score, or the model declined."""
        return self.error is None or self.declined

    @property
    def choice(self) -> float | None:
        """What attacks on a sample are compared by: the score, or where there are draws the mean of some others."""
        return self.score if self.screen is None else self.screen

    @property
    def key(self) -> Key:
        """What may be recorded only once: (sample_id, step, radius)."""
        return self.sample_id, self.step, float(self.radius)

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        data = {name: encode(getattr(self, name)) for name in self.__struct_fields__}
        for name in _OPTIONAL:
            if data[name] is None:
                del data[name]
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record that `to_json` wrote, now or in schema version 1.

        Raises:
            RecordsError: If a key is unknown or missing, or a value has the wrong type.
        """
        data = parse_object(text, cls.__struct_fields__, _OPTIONAL, _FORMER)
        for name in _NUMBERS:
            if data.get(name) is not None:
                data[name] = number(data[name])
        for name in _LISTS:
            if isinstance(data.get(name), list):
                data[name] = tuple(number(value) for value in data[name])
        for name, kind in (("call", Call), ("repeats", tuple[Repeat, ...])):
            if data.get(name) is not None:
                data[name] = _typed(data[name], kind, name)
        return cls(**data)


class FormerRecord(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A line of schema version 1: `Record` under its former names."""

    sample_id: str
    group: str
    step: str
    eps_255: float
    prediction: str
    score: float | None
    loss: float | None
    distance_255: float
    evaluations: int
    flags: tuple[str, ...]
    error: str | None
    seconds: float
    png_score: float | None = None
    course: tuple[float, ...] | None = None

    def renamed(self) -> Record:
        """The same under today's names."""
        return Record(
            self.sample_id,
            self.group,
            self.step,
            self.eps_255,
            self.prediction,
            self.score,
            self.loss,
            self.distance_255,
            self.evaluations,
            self.error,
            self.seconds,
            self.png_score,
            self.course,
        )
