"""Sanity verdicts on a run: of its first batch attacked, and of its records. Stored with the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from torch import Tensor

from attacks.checks import Verdict, gradient_verdict, logits_verdict, noise_verdict, repeatable_verdict
from attacks.objective import Objective
from attacks.outcome import Outcome
from attacks.presets import AttackStep
from attacks.threat import ThreatModel
from bench.config import RunConfig
from bench.records import Record
from tasks.base import Task

CLEAN = "clean"
BLACK_BOX = ("square",)  # kinds that use no gradient
BLACK_BOX_GAIN = 0.002  # share of the samples; AutoAttack's threshold
PLAIN_ENCODER, ANCHOR_EPS, ANCHOR_SHARE, ANCHOR_SAMPLES = "clip", 4.0, 0.25, 10
LOSS_SLACK = 1e-4  # relative


def batch_verdicts(
    objective: Objective, clean: Tensor, start: Tensor, outcome: Outcome, threat: ThreatModel
) -> tuple[Verdict, ...]:
    """Look at a batch before and after its attack, which began at the images `start`, while it is in memory."""
    gradient = gradient_verdict(objective, start)
    found = [gradient, repeatable_verdict(objective, clean), logits_verdict(objective, clean)]
    if not outcome.failed.all():
        found.append(noise_verdict(objective, clean, outcome, threat, range(len(clean))))
    return tuple(verdict for verdict in found if verdict is not None)


def run_verdicts(
    config: RunConfig, task: Task, steps: Sequence[AttackStep], records: Sequence[Record], first: Iterable[Verdict]
) -> list[dict[str, Any]]:
    """All verdicts on a finished run, ready to be stored."""
    latest = {record.key: record for record in records}.values()
    errors = [record.error for record in latest if record.error is not None]
    detail = f"{len(errors)} samples failed" + (f"; the first: {errors[0]}" if errors else "")
    verdicts = [Verdict("no_errors", not errors, detail), *first]
    sound = [record for record in latest if record.error is None]
    clean = {r.sample_id: r for r in sound if r.step == CLEAN}
    attacked = [r for r in sound if r.step != CLEAN and r.sample_id in clean]
    if attacked:
        verdicts += [_moves(attacked), _below_clean(attacked, clean, task), _grows_with_eps(attacked)]
        verdicts += _black_box(steps, attacked, clean, task)
        verdicts += _anchor(config, task, attacked, clean)
    return [asdict(verdict) for verdict in verdicts]


def _moves(attacked: Sequence[Record]) -> Verdict:
    """An attack that returns what it was given is no attack."""
    unmoved = sum(r.distance == 0 for r in attacked)
    detail = f"{unmoved} of {len(attacked)} attacked images equal their clean image"
    return Verdict("attack_moves_images", unmoved < len(attacked), detail)


def _below_clean(attacked: Sequence[Record], clean: dict[str, Record], task: Task) -> Verdict:
    """Attacked answers must not be better than clean ones, on the mean of the same samples."""
    sign = 1 if task.worst == "min" else -1
    changes = [_score(r) - _score(clean[r.sample_id]) for r in attacked]
    mean = sum(changes) / len(changes)
    detail = f"the attack moves the score by {mean:+.2f} on average over {len(changes)} attacked images"
    return Verdict("robust_not_above_clean", sign * mean <= 0, detail)


def _grows_with_eps(attacked: Sequence[Record]) -> Verdict:
    """In a larger ball the highest loss is at least as high; of samples that the same step attacked in both.

    Where the score changed, the step may have stopped at the first image that fooled, whose loss is not the highest.
    """
    radii = sorted({r.radius for r in attacked})
    found = {(r.sample_id, r.step, r.radius): (r.loss, r.score) for r in attacked if r.loss is not None}
    gains = [
        larger[0] - loss
        for low, high in pairwise(radii)
        for (sample, step, eps), (loss, score) in found.items()
        if eps == low and (larger := found.get((sample, step, high))) is not None and larger[1] == score
    ]
    mean = sum(gains) / len(gains) if gains else 0.0
    scale = max((abs(loss) for loss, _ in found.values()), default=0.0)
    detail = f"from one radius to the next the loss grows by {mean:+.3g} on average over {len(gains)} pairs"
    return Verdict("loss_grows_with_eps", mean >= -LOSS_SLACK * scale, detail)


def _black_box(
    steps: Sequence[AttackStep], attacked: Sequence[Record], clean: dict[str, Record], task: Task
) -> list[Verdict]:
    """Where gradients serve, an attack without them breaks nothing that they left standing."""
    names = {step.name for step in steps if step.kind in BLACK_BOX}
    tried = [r for r in attacked if r.step in names]
    if not names or names == {step.name for step in steps}:
        return []
    # a sample comes to the black-box step only if everything before left it standing
    broken = sum(_score(r) != _score(clean[r.sample_id]) for r in tried)
    detail = f"without gradients, {broken} of {len(clean)} samples are broken that attacks with gradients left standing"
    return [Verdict("white_box_at_least_black_box", broken <= BLACK_BOX_GAIN * len(clean), detail)]


def _anchor(config: RunConfig, task: Task, attacked: Sequence[Record], clean: dict[str, Record]) -> list[Verdict]:
    """Plain CLIP is not robust: a run that finds it so is not credible, whatever the reason."""
    eligible = config.encoder == PLAIN_ENCODER and config.surrogate is None and config.norm == "linf"
    radius = max(config.eps)
    if not eligible or task.worst != "min" or radius < ANCHOR_EPS or len(clean) < ANCHOR_SAMPLES:
        return []
    worst = {sample: _score(record) for sample, record in clean.items()}
    for record in attacked:
        worst[record.sample_id] = min(worst[record.sample_id], _score(record))
    before, after = sum(_score(r) for r in clean.values()), sum(worst.values())
    detail = f"at {radius:g}/255 plain CLIP keeps {100 * after / max(before, 1e-9):.1f} % of its clean score"
    if (credible := after <= ANCHOR_SHARE * before) is False:
        detail += f"; above {100 * ANCHOR_SHARE:g} % the attack, not the model, is at fault: the run is not credible"
    return [Verdict("plain_clip_is_broken", credible, detail)]


def _score(record: Record) -> float:
    assert record.score is not None, "records without a score are left out before"
    return record.score
