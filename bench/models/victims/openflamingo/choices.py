"""What can be chosen of an OpenFlamingo: how many examples it is shown, and how it decodes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.errors import UsageError
from bench.models.victims.openflamingo.generation import Decoding, LengthRule, NewTokens, WithPrompt
from bench.models.victims.openflamingo.prompts import Style

LENGTH_RULES: Mapping[str, type[LengthRule]] = {"generated": NewTokens, "prompt": WithPrompt}


@dataclass(frozen=True)
class Choices:
    """The family's settings as numbers; see `OpenFlamingoFamily.settings`.

    Attributes:
        length_penalty: None for that of the kind of question.
    """

    shots: int = 0
    seed: int = 0
    beams: int = 1
    length_penalty: float | None = None
    length: LengthRule = field(default_factory=NewTokens)

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Choices":
        """From texts.

        Raises:
            UsageError: one is no number of its kind, or a length penalty is given that nothing would use.
        """
        beams = _whole(settings, "beams", 1, least=1)
        if beams == 1 and "length_penalty" in settings:
            raise UsageError(
                "length_penalty does nothing with greedy decoding; give beams=3 beside it, or leave it out"
            )
        return cls(
            shots=_whole(settings, "shots", 0),
            seed=_whole(settings, "demonstrations_seed", 0),
            beams=beams,
            length_penalty=_number(settings, "length_penalty"),
            length=LENGTH_RULES[settings.get("length_counts", "generated")](),
        )

    def decoding(self, style: Style) -> Decoding:
        """How answers to one kind of question are found."""
        penalty = style.length_penalty if self.length_penalty is None else self.length_penalty
        return Decoding(self.beams, penalty, self.length)


def _whole(settings: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    value = settings.get(name, str(default))
    if not (value.isascii() and value.isdecimal()) or not least <= int(value) < 2**31:
        raise UsageError(f"{name} must be a whole number from {least}, not {value!r}")
    return int(value)


def _number(settings: Mapping[str, str], name: str) -> float | None:
    if name not in settings:
        return None
    try:
        value = float(settings[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name} must be a number, not {settings[name]!r}")
    return value
