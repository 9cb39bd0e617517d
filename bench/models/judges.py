"""Judges by name, and the one that compares texts by the text towers of encoders on this machine."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from bench import registry
from bench.errors import UsageError
from bench.models.encoders.load import digest, load_encoder
from bench.models.victims import specs
from tasks.judges import Judge

GROUP = "bench.judges"
JOINED = ","
DEFAULT = "clip"


class TextTowers:
    """Mean cosine of the embeddings of two texts over text towers, 0 where it is below.

    AttackVLM takes the towers of five CLIPs, whose cosines are above 0.

    Attributes:
        name: with the encoders.
    """

    def __init__(self, encoders: Mapping[str, Any]) -> None:
        self.name = f"text?encoders={JOINED.join(encoders)}"
        self.towers = {name: encoder.text for name, encoder in encoders.items()}

    def __call__(self, said: str, wanted: Sequence[str]) -> float:
        """Of several texts wanted, the mean."""
        found = []
        for tower in self.towers.values():
            first, *others = tower.embed([said, *wanted])
            found += [float(first @ other) for other in others]
        return max(0.0, sum(found) / len(found))

    def digests(self) -> Mapping[str, str]:
        """Of the text towers."""
        return {f"judge {name}": digest(tower) for name, tower in self.towers.items()}


def text(settings: Mapping[str, str], encoders: str) -> TextTowers:
    """The judge "text".

    Raises:
        ValueError: an unknown setting.
        UsageError: an unknown encoder.
    """
    if surplus := settings.keys() - {"encoders"}:
        raise ValueError(f"judge 'text' has the setting encoders=A,B, not {', '.join(sorted(surplus))}")
    names = settings.get("encoders", DEFAULT).split(JOINED)
    return TextTowers({name: load_encoder(name, encoders) for name in names})


def load_judge(asked: str, encoders: str) -> Judge:
    """A judge by ``NAME`` or ``NAME?SETTING=VALUE``.

    Args:
        asked: what was asked for.
        encoders: family of the catalogue that names are looked up in.

    Raises:
        UsageError: an unknown judge, or settings that it does not understand.
    """
    name, settings = specs.parse(asked)
    try:
        made = registry.made(GROUP, name, object, settings, encoders)
    except ValueError as error:
        raise UsageError(f"--judge {asked}: {error}") from error
    if not _is_judge(made):
        raise registry.broken(GROUP, name, f"it gives a {type(made).__name__}, not what tasks.judges.Judge asks for")
    return cast(Judge, made)


def _is_judge(made: object) -> bool:
    try:
        named = isinstance(getattr(made, "name", None), str)
        return named and callable(made) and callable(getattr(made, "digests", None))
    except Exception:  # whatever a third party's code raises
        return False
