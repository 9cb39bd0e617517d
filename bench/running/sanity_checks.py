"""Sanity checks on a run: on its first batch attacked, and on its records. Stored with the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import exp, fsum, lgamma, log
from statistics import fmean
from typing import Any

from torch import Tensor

from attacks.adaptive import STAND_IN
from attacks.checks import (
    SanityCheck,
    gradient_check,
    logits_check,
    noise_check,
    repeatable_check,
    rows_check,
    slope_check,
)
from attacks.kinds import AttackKind
from attacks.objective import Objective
from attacks.outcome import Outcome
from attacks.presets import AttackStep
from attacks.threat import ThreatModel
from bench.config import RunConfig
from bench.records import CLEAN, Record, RunHeader
from bench.records.worst import WorstSoFar
from bench.running.endpoints import asked_together
from bench.running.kinds import attack_kind
from bench.running.reliability import reliability_checks
from tasks.base import Task

BATCH_CHECK = "repeatable"  # the check that every first batch gets
BLACK_BOX_GAIN = 0.002  # share of the samples; AutoAttack's threshold
PLAIN_ENCODER, ANCHOR_EPS, ANCHOR_SHARE, ANCHOR_SAMPLES = "clip", 4.0, 0.25, 10
BY_CHANCE = 0.01  # p-value from which attacked scores above clean ones are chance; the gate's, too
FEW = 16  # samples along whose random directions the loss is looked at
LOSS_SLACK = 1e-4  # relative
LOST_AS_PNG = 0.1  # share of what an attack broke that may be unbroken once its images are 8-bit pictures


def batch_checks(
    objective: Objective,
    clean: Tensor,
    start: Tensor,
    outcome: Outcome,
    threat: ThreatModel,
    kind: AttackKind,
    *,
    exact: bool,
) -> tuple[SanityCheck, ...]:
    """Look at a batch before and after its attack, which began at the images `start`, while it is in memory.

    Differences of losses are looked at where those are exact: in half precision they are rounding.
    """
    found: list[SanityCheck | None] = [gradient_check(objective, start)] if kind.white_box else []
    found += [slope_check(objective, start[:FEW], range(len(start[:FEW])))] if kind.white_box and exact else []
    found += [repeatable_check(objective, clean), logits_check(objective, clean)]
    if not (kind.floor or outcome.failed.all()):
        found.append(noise_check(objective, clean, outcome, threat, range(len(clean))))
    return tuple(check for check in found if check is not None)


def defence_checks(
    objective: Objective, stand_in: Objective | None, clean: Tensor, start: Tensor
) -> tuple[SanityCheck, ...]:
    """Look at a defended victim as an attack through its defence meets it, with draws that stay the same.

    Args:
        objective: of B samples.
        stand_in: the same with the gradient of the defence's stand-in; None where that is its own.
        clean: (B, 3, H, W).
        start: (B, 3, H, W) where the attack begins.
    """
    few = start[:FEW]
    found = [gradient_check(objective, start), slope_check(objective, few, range(len(few)))]
    found += [slope_check(stand_in, few, range(len(few)), STAND_IN)] if stand_in is not None else []
    return *found, rows_check(objective, clean), repeatable_check(objective, clean)


def run_checks(
    config: RunConfig, header: RunHeader, task: Task, records: Sequence[Record], first: Iterable[SanityCheck]
) -> list[dict[str, Any]]:
    """All checks on a finished run, ready to be stored."""
    steps = config.steps
    latest = {record.key: record for record in records}.values()
    errors = [record.error for record in latest if not record.settled]
    detail = f"{len(errors)} samples failed" + (f"; the first: {errors[0]}" if errors else "")
    checks = [SanityCheck("no_errors", not errors, detail), *first]
    sound = [record for record in latest if record.error is None]
    clean = {r.sample_id: r for r in sound if r.step == CLEAN}
    attacked = [r for r in sound if r.step != CLEAN and r.sample_id in clean]
    if attacked:
        checks.append(_moves(attacked))
    weak = config.images is not None or all(attack_kind(step.kind).floor for step in steps)
    if attacked and config.defence:
        checks.append(_below_clean(attacked, clean, task))
        checks += reliability_checks(header, steps, sound)
    elif attacked and not weak:  # who brings images may bring weak ones
        checks += [_below_clean(attacked, clean, task), _grows_with_eps(attacked, task)]
        checks += _black_box(steps, attacked, clean, task)
        checks += _anchor(config, task, attacked, clean)
        checks += _survives_eight_bits(attacked, clean)
    together = asked_together(latest)
    checks += [together] if together is not None else []
    return [asdict(check) for check in checks]


def _moves(attacked: Sequence[Record]) -> SanityCheck:
    """An attack that returns what it was given is no attack."""
    unmoved = sum(r.distance == 0 for r in attacked)
    detail = f"{unmoved} of {len(attacked)} attacked images equal their clean image"
    return SanityCheck("attack_moves_images", unmoved < len(attacked), detail)


def _below_clean(attacked: Sequence[Record], clean: dict[str, Record], task: Task) -> SanityCheck:
    """Attacked answers must not be better than clean ones to the same samples, on more images than chance gives.

    An attack that stops at no threshold may raise the CIDEr of a few images by chance: a sign test over images.
    """
    upwards = 1 if task.worst == "min" else -1
    moved = [(clean[r.sample_id].group, _score(r) - _score(clean[r.sample_id])) for r in attacked]
    changes: dict[str, float] = {}
    for image, change in moved:
        changes[image] = changes.get(image, 0.0) + upwards * change
    better, worse = sum(c > 0 for c in changes.values()), sum(c < 0 for c in changes.values())
    detail = (
        f"the attack moves the score by {fmean(change for _, change in moved):+.2f} on average; it is better than the "
        f"clean one on {better} of {len(changes)} images and worse on {worse}"
    )
    return SanityCheck("robust_not_above_clean", _at_least(better, better + worse) >= BY_CHANCE, detail)


def _at_least(heads: int, tosses: int) -> float:
    """The chance of at least so many heads."""
    ways = (lgamma(tosses + 1) - lgamma(k + 1) - lgamma(tosses - k + 1) for k in range(heads, tosses + 1))
    return fsum(exp(each - tosses * log(2)) for each in ways)


def _grows_with_eps(attacked: Sequence[Record], task: Task) -> SanityCheck:
    """In a larger ball the highest loss is at least as high; of samples that the same step attacked in both.

    Where the score changed, or the sample is broken in both, the step may have stopped at the first image that fooled,
    whose loss is not the highest.
    """
    samples = {sample.id: sample for sample in task.dataset.samples}
    radii = sorted({r.radius for r in attacked})
    found = {(r.sample_id, r.step, r.radius): (r.loss, _score(r)) for r in attacked if r.loss is not None}
    gains = [
        larger[0] - loss
        for low, high in pairwise(radii)
        for (sample, step, eps), (loss, score) in found.items()
        if eps == low and (larger := found.get((sample, step, high))) is not None and larger[1] == score
        if not task.broken(score, samples[sample])
    ]
    mean = sum(gains) / len(gains) if gains else 0.0
    scale = max((abs(loss) for loss, _ in found.values()), default=0.0)
    detail = f"from one radius to the next the loss grows by {mean:+.3g} on average over {len(gains)} pairs"
    return SanityCheck("loss_grows_with_eps", mean >= -LOSS_SLACK * scale, detail)


def _black_box(
    steps: Sequence[AttackStep], attacked: Sequence[Record], clean: dict[str, Record], task: Task
) -> list[SanityCheck]:
    """Where gradients serve, an attack without them breaks nothing that is robust against them."""
    names = {step.name for step in steps if not attack_kind(step.kind).white_box}
    tried = [r for r in attacked if r.step in names]
    if not names or names == {step.name for step in steps}:
        return []
    # a sample comes to the black-box step only if it is robust against everything before
    broken = sum(_score(r) != _score(clean[r.sample_id]) for r in tried)
    detail = (
        f"without gradients, {broken} of {len(clean)} samples are broken that are robust against those with gradients"
    )
    return [SanityCheck("white_box_at_least_black_box", broken <= BLACK_BOX_GAIN * len(clean), detail)]


def _anchor(config: RunConfig, task: Task, attacked: Sequence[Record], clean: dict[str, Record]) -> list[SanityCheck]:
    """Plain CLIP is not robust: a run that finds it so is not credible, whatever the reason."""
    eligible = config.encoder == PLAIN_ENCODER and config.surrogate is None and config.norm == "linf"
    radius = max(config.eps)
    if not eligible or task.worst != "min" or radius < ANCHOR_EPS or len(clean) < ANCHOR_SAMPLES:
        return []
    so_far = WorstSoFar(task.worst)
    for record in (*clean.values(), *attacked):
        so_far.add(record)
    left = [found for sample in clean if (found := so_far.at(sample, radius)) is not None]
    before, after = sum(map(_score, clean.values())), sum(map(_score, left))
    detail = f"at {radius:g}/255 plain CLIP keeps {100 * after / max(before, 1e-9):.1f} % of its clean score"
    if (credible := after <= ANCHOR_SHARE * before) is False:
        detail += f"; above {100 * ANCHOR_SHARE:g} % the attack, not the model, is at fault: the run is not credible"
    return [SanityCheck("plain_clip_is_broken", credible, detail)]


def _survives_eight_bits(attacked: Sequence[Record], clean: dict[str, Record]) -> list[SanityCheck]:
    """Where a model is deployed on 8-bit pictures, an attack must harm it there, too."""
    if not any(record.png_score is not None for record in clean.values()):
        return []
    harmed = [r for r in attacked if r.png_score is not None and _score(r) != _score(clean[r.sample_id])]
    lost = sum(r.png_score == clean[r.sample_id].png_score for r in harmed)
    detail = f"of {len(harmed)} images that an attack changed the score of, {lost} do not change it as 8-bit pictures"
    return [SanityCheck("attack_survives_8_bits", lost <= max(1, LOST_AS_PNG * len(harmed)), detail)]


def _score(record: Record) -> float:
    assert record.score is not None, "records without a score are left out before"
    return record.score
