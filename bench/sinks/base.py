"""What a sink is, and what it is told."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Fact = str | int | float | bool | None
LOGIN = re.compile(r"(?<=//)[^/@\s]*@")  # USER:PASSWORD@ of an address
_SECRET = re.compile("KEY|TOKEN|PASSWORD|SECRET")  # in the name of an environment variable
_SHORTEST = 8  # characters of a secret; what is shorter may be an ordinary word


@dataclass(frozen=True)
class Subject:
    """What numbers are of: a run or a training.

    Attributes:
        kind: which of the two.
        name: what lists show, relative and with "/" between its parts.
        identity: the same whenever the same run is sent again, or the same training goes on.
        settings: what was asked for and of what, by name.
    """

    kind: Literal["run", "training"]
    name: str
    identity: str
    settings: Mapping[str, Fact]


class Sink(Protocol):
    """Keeps the numbers of one run or training somewhere.

    Whatever a sink raises but at its making costs no result: it is named in a warning and left out. What ``--log-to
    NAME:PLACE?key=value`` says behind the place arrives as further keyword arguments; a sink takes those that it names.
    """

    def __init__(self, place: str) -> None:
        """Look at the options; open nothing yet.

        Raises:
            UsageError: a package is missing, or the place makes no sense.
        """

    def begin(self, subject: Subject) -> None:
        """Numbers of this subject follow; perhaps not for the first time."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers by name, such as "score/4" of a run (radius 4, step 0) or "loss" of a training's update."""

    def close(self) -> None:
        """Nothing follows."""


def without_secrets(text: str) -> str:
    """A text without the values of environment variables that hold keys, and without logins in addresses.

    >>> os.environ["SOME_API_KEY"] = "0123456789"
    >>> without_secrets("401 for key 0123456789")
    '401 for key [secret]'
    """
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "[secret]")
    return LOGIN.sub("[secret]@", text)
