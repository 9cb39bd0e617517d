"""The kinds of attack that a step can name, behind one signature.

A third party adds a kind by an entry point of the group "bench.attack_kinds" that names an `AttackFunction`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attacks.apgd import FirstCheckpoint, apgd
from attacks.objective import Classification, Objective, evaluate
from attacks.outcome import Outcome
from attacks.pgd import pgd
from attacks.presets import AttackStep
from attacks.threat import ThreatModel, checked_start

Confirm: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Search:
    """How to carry out one step on B images.

    Attributes:
        step: the step, with the number of gradient steps and the first step size.
        init: (B, 3, H, W) start.
        seeds: (B,) one an image, for attacks that draw random numbers of their own: a result may depend on nothing
            else, so that it is the same in any batch.
        stop_when_fooled: whether a fooled image is finished.
        first_checkpoint: see `attacks.apgd.apgd`.
        siblings: see `attacks.apgd.apgd`; None unless images appear under several goals.
        confirm: see `attacks.apgd.apgd`; None where nobody can be asked, or only afterwards.
    """

    step: AttackStep
    init: Tensor
    seeds: Sequence[int]
    stop_when_fooled: bool = True
    first_checkpoint: FirstCheckpoint = "start"
    siblings: Tensor | None = None
    confirm: Confirm | None = None


AttackFunction: TypeAlias = Callable[[Objective, Tensor, ThreatModel, Search], Outcome]
"""objective, images (B, 3, H, W) float32 in [0, 1], threat model, search -> outcome, in the order of the images."""


def climb(
    objective: Objective, images: Tensor, threat: ThreatModel, search: Search, confirm: Confirm | None = None
) -> Outcome:
    """Kind "apgd"."""
    return apgd(
        objective,
        images,
        threat,
        steps=search.step.steps,
        init=search.init,
        first_step=search.step.first_step,
        stop_when_fooled=search.stop_when_fooled,
        first_checkpoint=search.first_checkpoint,
        siblings=search.siblings,
        confirm=confirm,
    )


def climb_confirming(objective: Objective, images: Tensor, threat: ThreatModel, search: Search) -> Outcome:
    """Kind "apgd-confirm": the same, and at each checkpoint the model itself is asked whether a sample is lost."""
    return climb(objective, images, threat, search, search.confirm)


def ascend(objective: Objective, images: Tensor, threat: ThreatModel, search: Search) -> Outcome:
    """Kind "pgd"."""
    return pgd(
        objective,
        images,
        threat,
        steps=search.step.steps,
        step_size=search.step.first_step * threat.eps,
        init=search.init,
        stop_when_fooled=search.stop_when_fooled,
    )


_NORMS = {"linf": "Linf", "l2": "L2"}


def fab_t(objective: Objective, images: Tensor, threat: ThreatModel, search: Search) -> Outcome:
    """Kind "fab-t": targeted FAB (Croce & Hein 2020, arXiv 1907.02044) by pyautoattack, on up to nine rivals.

    Raises:
        ValueError: the objective is not that of a classifier.
    """
    from pyautoattack.fab_pt import FABAttack_PT

    classifier = _classifier(objective, search.step)
    with torch.no_grad():
        classes = classifier.model(images[:1]).shape[1]
    attack = FABAttack_PT(
        classifier.model, norm=_NORMS[threat.norm], n_restarts=1, n_iter=search.step.steps, eps=threat.eps,
        targeted=True, n_target_classes=min(9, classes - 1), seed=0, device=images.device,
    )  # fmt: skip
    rivals = min(9, classes - 1)
    return _borrowed(attack, classifier, images, threat, [0], search.step.steps * rivals)


def square(objective: Objective, images: Tensor, threat: ThreatModel, search: Search) -> Outcome:
    """Kind "square": the black-box Square attack (Andriushchenko et al. 2020, arXiv 1912.00049) by pyautoattack.

    It draws its squares from one stream for the whole batch; images are therefore attacked one by one, each from a
    seed of its own, so that its result does not depend on the others. It uses no gradient.

    Raises:
        ValueError: the objective is not that of a classifier.
    """
    from pyautoattack.square import SquareAttack

    classifier = _classifier(objective, search.step)
    attack = SquareAttack(
        classifier.model, norm=_NORMS[threat.norm], n_queries=search.step.steps, eps=threat.eps, n_restarts=1,
        device=images.device, resc_schedule=False,
    )  # fmt: skip
    return _borrowed(attack, classifier, images, threat, search.seeds, 0)


def _borrowed(
    attack: Any,
    classifier: Classification,
    images: Tensor,
    threat: ThreatModel,
    seeds: Sequence[int],
    evaluations: int,
) -> Outcome:
    """Run an attack of pyautoattack on the images that still stand: together with one seed, or one by one."""
    rows = torch.arange(len(images), device=images.device)
    before = evaluate(classifier, images, rows)
    found, standing = images.clone(), rows[~before.fooled]
    spent = torch.zeros_like(rows)
    spent[standing] = evaluations
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # it seeds torch's global stream
        for part in [standing] if len(seeds) == 1 else standing.split(1):
            if len(part) > 0:
                attack.seed = seeds[0] if len(seeds) == 1 else seeds[int(part)]
                found[part] = attack.perturb(images[part], classifier.labels[part]).detach().float()
    found = checked_start(images, found, threat)
    after = evaluate(classifier, found, rows)
    failed = ~(before.loss.isfinite() & after.loss.isfinite())
    return Outcome(found, after.loss.masked_fill(failed, torch.nan), after.fooled & ~failed, failed, spent)


def _classifier(objective: Objective, step: AttackStep) -> Classification:
    if not isinstance(objective, Classification):
        raise ValueError(f"step {step.name!r} attacks the logits of a classifier; use it with zero-shot classification")
    return objective


KINDS: dict[str, AttackFunction] = {
    "apgd": climb, "apgd-confirm": climb_confirming, "pgd": ascend, "fab-t": fab_t, "square": square
}  # fmt: skip
