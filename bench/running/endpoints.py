"""What a run on an endpoint needs beside: repetitions, a sample's images asked about together."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from torch import Tensor

from attacks.checks import SanityCheck
from bench.config import RunConfig
from bench.data.brought import EXACT, PNG
from bench.models.victims.load import is_black_box
from bench.records import Record
from bench.running.plugins import ask, score_of
from bench.running.victims import vlm_of
from tasks.base import Answer, Sample, Task, Victim
from tasks.calls import DECLINED, Repeat

SESSION = 8  # samples whose clean and attacked images are asked about before those of others
LONGEST_GAP = 24.0  # hours between the calls about a sample's clean and its attacked image


def formats_of(config: RunConfig) -> tuple[str, ...]:
    """Formats of images that are brought: to an endpoint a PNG is sent, so that it is what must be measured."""
    return (PNG,) if is_black_box(vlm_of(config)) else (EXACT, PNG)


def repeats_of(model: Any, task: Task, config: RunConfig) -> tuple[Victim, ...]:
    """The victims that stand for asking again about a clean image."""
    return tuple(task.bind(model.again(number)) for number in range(1, (config.repeats or 0) + 1))


def session_of(model: Any) -> int | None:
    """How many samples are asked about at a time; None where it does not matter when."""
    concurrency = getattr(model, "concurrency", None)
    return None if concurrency is None else max(SESSION, concurrency)


def ask_again(
    victims: Sequence[Victim], task: Task, images: Tensor, samples: Sequence[Sample], records: Sequence[Record]
) -> list[Record]:
    """Records of clean images with what the victims say of them when asked again; a failure there fails the whole."""
    if not victims:
        return list(records)
    rounds = [ask(victim, images, samples) for victim in victims]
    return [_with_repeats(record, [said[k] for said in rounds], task, samples[k]) for k, record in enumerate(records)]


def _with_repeats(record: Record, answers: Sequence[Answer], task: Task, sample: Sample) -> Record:
    repeats = []
    for number, answer in enumerate(answers, start=1):
        call = answer.call
        if call is None or (answer.error is not None and call.outcome not in DECLINED):
            error = record.error or f"repeat {number}: {answer.error}"
            return msgspec.structs.replace(record, score=None, prediction="", error=error)
        score = None if answer.error else score_of(task, answer, sample)
        repeats.append(Repeat("" if answer.error else answer.text, score, call))
    return msgspec.structs.replace(record, repeats=tuple(repeats))


def asked_together(records: Iterable[Record]) -> SanityCheck | None:
    """A provider may change its model at any time: all images of a sample must be asked about at about one time."""
    dates: dict[str, list[datetime]] = {}
    for record in records:
        if record.call is not None and record.settled:
            dates.setdefault(record.sample_id, []).append(record.call.date)
    if not dates:
        return None
    gaps = [(max(of) - min(of)).total_seconds() / 3600 for of in dates.values()]
    late = sum(gap > LONGEST_GAP for gap in gaps)
    detail = f"of {len(gaps)} samples, {late} were asked about with more than {LONGEST_GAP:g} hours between"
    return SanityCheck("asked_together", late == 0, f"{detail}; the longest gap is {max(gaps):.1f} hours")
