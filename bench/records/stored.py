"""What a header stores free-form, as types: what of it is relied upon. Nothing here opens a file."""

from typing import Any, Literal, TypeVar

import msgspec

from bench.records.files import RecordsError


class Chosen(msgspec.Struct, frozen=True):
    """What `RunHeader.protocol` may say beside what only its own task or model reads."""

    name: str = "strict"
    precision: str = "float32"
    half_verdicts: bool = False
    cumulative_radii: bool = True
    radii_order: Literal["ascending", "descending", "adaptive"] = "ascending"
    compiled: bool = False
    tower: str = "encoder"
    surrogate: str | None = None
    ensemble: dict[str, float] = {}
    surrogate_model: str | None = None
    victim: dict[str, str] = {}
    surrogate_victim: dict[str, str] = {}
    defence: str | None = None
    judge: str | None = None
    selection: str | None = None
    data: str | None = None
    images: str | None = None
    yes_no: str = "first-word"


class Place(msgspec.Struct, frozen=True):
    """Where a dataset lay."""

    where: str


class Asked(msgspec.Struct, frozen=True):
    """What of `RunHeader.config` is relied upon where it was stored before requests were."""

    data_root: str | None = None
    arch: str | None = None
    place: Place | None = None


class State(msgspec.Struct, frozen=True):
    """The state of the code."""

    commit: str | None = None
    dirty: bool | None = None
    source: str | None = None


class Check(msgspec.Struct, frozen=True):
    """A sanity check on a run."""

    name: str
    ok: bool
    detail: str


class Step(msgspec.Struct, frozen=True):
    """What is asked of a recorded attack step: its name, what it wants, its precision and how many steps it takes."""

    name: str
    goal: str = ""
    precision: str = ""
    kind: str = ""
    steps: int = 0
    through: str = ""
    independent: bool = False


T = TypeVar("T")


def typed(data: Any, kind: type[T], name: str = "") -> T:
    """Plain data as a type.

    Raises:
        RecordsError: If a value has another type; names it.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        where = (name + place.rstrip("`")).removeprefix(".")
        raise RecordsError(f"{where}: {problem[:1].lower()}{problem[1:]}") from error
    except UnicodeEncodeError as error:
        raise RecordsError(f"{name or 'a field'} holds {error.object!r}, which is no text") from error
