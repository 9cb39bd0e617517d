"""The kinds of attack that a step can name, behind one signature.

A kind is an `AttackKind`, or a plain `AttackFunction`, which then counts as one that follows gradients. A third party
adds one by an entry point of the group "bench.attack_kinds".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attacks.apgd import FirstCheckpoint, apgd
from attacks.objective import (
    LOSSES,
    Classification,
    Ensemble,
    Expectation,
    Objective,
    TargetedClassification,
    evaluate,
)
from attacks.outcome import Outcome
from attacks.pgd import SCHEDULES, pgd
from attacks.presets import AttackStep
from attacks.restarts import Attack, restarted
from attacks.threat import ThreatModel, checked_start

Confirm: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StepContext:
    """How to carry out one step on B images.

    Attributes:
        step: the step, with the number of gradient steps, the first step size and options.
        init: (B, 3, H, W) start.
        seeds: (B,) one per image, for attacks that draw random numbers of their own: a result may depend on nothing
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


AttackFunction: TypeAlias = Callable[[Objective, Tensor, ThreatModel, StepContext], Outcome]
"""objective, images (B, 3, H, W) float32 in [0, 1], threat model, context -> outcome, in the order of the images."""


@dataclass(frozen=True)
class Option:
    """A setting of a step that a kind understands: what values it takes, in words and as a check."""

    values: str
    valid: Callable[[Any], bool]


def as_it_is(objective: Objective, options: Mapping[str, Any]) -> Objective:
    """Leave the objective alone."""
    return objective


@dataclass(frozen=True)
class AttackKind:
    """One way to attack, and what the runner must know of it.

    Attributes:
        run: the attack.
        about: one line for humans.
        white_box: whether it follows gradients: only then do a missing gradient and a better black-box attack tell
            against it.
        loss_curve: whether its loss against steps is kept; for kinds that ask their objective once per step, of all
            samples that are left, and nothing else.
        floor: whether it is no real attack but what one is set beside, so that it need not do harm.
        options: what a step's `options` may hold; None: `run` itself looks at them.
        adapt: makes of the task's objective the one that is ascended.
    """

    run: AttackFunction
    about: str
    white_box: bool = True
    loss_curve: bool = False
    floor: bool = False
    options: Mapping[str, Option] | None = field(default_factory=dict)
    adapt: Callable[[Objective, Mapping[str, Any]], Objective] = as_it_is

    def check(self, step: AttackStep) -> None:
        """Refuse options that this kind does not understand.

        Raises:
            ValueError: names the option and what is possible.
        """
        known = self.options
        for name, value in step.options.items() if known is not None else ():
            if known is None or name not in known:
                listed = f"its options are {', '.join(known)}" if known else "it has no options"
                raise ValueError(f"kind {step.kind!r} has no option {name!r}; {listed}")
            if not known[name].valid(value):
                raise ValueError(f"option {name} of kind {step.kind!r} must be {known[name].values}, not {value!r}")


def kind_of(found: object) -> AttackKind:
    """What a name stands for as a kind: one already, or a plain function.

    Raises:
        TypeError: neither.
    """
    if isinstance(found, AttackKind):
        return found
    if callable(found) and not isinstance(found, type):
        about = (found.__doc__ or "an attack from a plugin").strip().splitlines()[0]
        return AttackKind(found, about, options=None)
    raise TypeError(f"an attack kind is an attacks.kinds.AttackKind or a function, not a {type(found).__name__}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MOMENTUM = Option("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
RESTARTS = Option("a whole number above 0", lambda value: type(value) is int and value > 0)
SCHEDULE = Option(" or ".join(map(repr, SCHEDULES)), lambda value: isinstance(value, str) and value in SCHEDULES)
LOSS = Option(" or ".join(map(repr, LOSSES)), lambda value: isinstance(value, str) and value in LOSSES)


def with_loss(objective: Objective, options: Mapping[str, Any]) -> Objective:
    """The objective with the loss that the options name.

    Raises:
        ValueError: a loss is named, and the objective is not that of a classifier, or has no such loss.
    """
    if "loss" not in options:
        return objective
    if isinstance(objective, Expectation | Ensemble):
        return objective.with_each(lambda one: with_loss(one, options))
    if not isinstance(objective, Classification | TargetedClassification):
        raise ValueError("option loss chooses among losses of a classifier; leave it out here")
    return replace(objective, loss=options["loss"])


def run_apgd(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "apgd"."""
    return run_apgd_confirm(objective, images, threat, replace(context, confirm=None))


def run_apgd_confirm(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "apgd-confirm": the same, and at each checkpoint the model itself is asked whether a sample is broken."""

    def once(objective: Objective, images: Tensor, init: Tensor, rows: Tensor) -> Outcome:
        confirm = context.confirm
        return apgd(
            objective,
            images,
            threat,
            steps=context.step.steps,
            init=init,
            first_step=context.step.first_step,
            stop_when_fooled=context.stop_when_fooled,
            first_checkpoint=context.first_checkpoint,
            siblings=None if context.siblings is None else context.siblings[rows],
            confirm=None if confirm is None else lambda shown, asked: confirm(shown, rows[asked]),
        )

    return _with_restarts(once, objective, images, threat, context)


def run_pgd(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "pgd"."""

    def once(objective: Objective, images: Tensor, init: Tensor, rows: Tensor) -> Outcome:
        return pgd(
            objective,
            images,
            threat,
            steps=context.step.steps,
            step_size=context.step.first_step * threat.eps,
            momentum=context.step.options.get("momentum", 0.9),
            schedule=SCHEDULES[context.step.options.get("schedule", "constant")],
            init=init,
            stop_when_fooled=context.stop_when_fooled,
        )

    return _with_restarts(once, objective, images, threat, context)


def _with_restarts(
    once: Attack, objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext
) -> Outcome:
    times = context.step.options.get("restarts", 1)
    seeds, stop = context.seeds, context.stop_when_fooled
    return restarted(once, objective, images, threat, context.init, seeds, times=times, stop_when_fooled=stop)


def run_noise(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "noise": the start itself, a random image of the ball where the step starts at one; no gradient is used."""
    start = checked_start(images, context.init, threat)
    found = evaluate(objective, start, torch.arange(len(images), device=images.device))
    failed = ~found.loss.isfinite()
    spent = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    return Outcome(start, found.loss.masked_fill(failed, torch.nan), found.fooled & ~failed, failed, spent)


_NORMS = {"linf": "Linf", "l2": "L2"}


def run_fab_t(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "fab-t": targeted FAB (Croce & Hein 2020, arXiv 1907.02044) by pyautoattack, on up to nine rivals.

    Raises:
        ValueError: the objective is not that of a classifier.
    """
    from pyautoattack.fab_pt import FABAttack_PT

    classifier = _classifier(objective, context.step)
    with torch.no_grad():
        rivals = min(9, classifier.model(images[:1]).shape[1] - 1)
    attack = FABAttack_PT(
        classifier.model,
        norm=_NORMS[threat.norm],
        n_restarts=1,
        n_iter=context.step.steps,
        eps=threat.eps,
        targeted=True,
        n_target_classes=rivals,
        seed=0,
        device=images.device,
    )
    return _borrowed(attack, classifier, images, threat, [0], context.step.steps * rivals)


def run_square(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "square": the black-box Square attack (Andriushchenko et al. 2020, arXiv 1912.00049) by pyautoattack.

    It draws its squares from one stream for the whole batch; images are therefore attacked one by one, each from a
    seed of its own, so that its result does not depend on the others. It uses no gradient.

    Raises:
        ValueError: the objective is not that of a classifier.
    """
    from pyautoattack.square import SquareAttack

    classifier = _classifier(objective, context.step)
    attack = SquareAttack(
        classifier.model,
        norm=_NORMS[threat.norm],
        n_queries=context.step.steps,
        eps=threat.eps,
        n_restarts=1,
        device=images.device,
        resc_schedule=False,
    )
    return _borrowed(attack, classifier, images, threat, context.seeds, 0)


def _borrowed(
    attack: Any,
    classifier: Classification,
    images: Tensor,
    threat: ThreatModel,
    seeds: Sequence[int],
    evaluations: int,
) -> Outcome:
    """Run an attack of pyautoattack on the images that do not fool yet: together with one seed, or one by one."""
    rows = torch.arange(len(images), device=images.device)
    before = evaluate(classifier, images, rows)
    found, robust = images.clone(), rows[~before.fooled]
    spent = torch.zeros_like(rows)
    spent[robust] = evaluations
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # it seeds torch's global stream
        for part in [robust] if len(seeds) == 1 else torch.split(robust, 1):
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


def run_brought(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "brought": nothing is made here.

    Raises:
        ValueError: always.
    """
    raise ValueError("images of kind 'brought' are made elsewhere; give their folder to `bench score`")


_CLIMB = {"loss": LOSS, "restarts": RESTARTS}

APGD = AttackKind(
    run_apgd,
    "Auto-PGD, which sets its own step size (arXiv 2003.01690)",
    loss_curve=True,
    options=_CLIMB,
    adapt=with_loss,
)
APGD_CONFIRM = AttackKind(
    run_apgd_confirm,
    "Auto-PGD that asks the victim at its checkpoints whether a sample is broken",
    loss_curve=True,
    options=_CLIMB,
    adapt=with_loss,
)
PGD = AttackKind(
    run_pgd,
    "projected gradient ascent with momentum, its step constant or falling (arXiv 1706.06083, 1710.06081)",
    loss_curve=True,
    options={**_CLIMB, "momentum": MOMENTUM, "schedule": SCHEDULE},
    adapt=with_loss,
)
FAB_T = AttackKind(run_fab_t, "targeted FAB, by pyautoattack (arXiv 1907.02044)")
SQUARE = AttackKind(run_square, "the Square attack, by pyautoattack (arXiv 1912.00049)", white_box=False)
BROUGHT = AttackKind(run_brought, "images made elsewhere, brought by `bench score`", white_box=False)
NOISE = AttackKind(run_noise, "one random image of the ball, the floor of every attack", white_box=False, floor=True)
