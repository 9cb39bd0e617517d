"""Projected gradient ascent with momentum and a constant step."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.objective import Objective, evaluate, evaluate_with_gradient
from attacks.outcome import Ledger, Outcome
from attacks.threat import ThreatModel, checked_start


def pgd(
    objective: Objective,
    images: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    momentum: float = 0.9,
    init: Tensor | None = None,
    stop_when_fooled: bool = True,
) -> Outcome:
    """Projected gradient ascent (Madry et al. 2018, arXiv 1706.06083) with the momentum of MI-FGSM.

    The velocity gathers gradients scaled to unit l1 norm (Dong et al. 2018, arXiv 1710.06081, section 3.1); a
    step goes along its sign for linf, along its l2-normalised direction for l2. The code published with
    arXiv 2402.12336 takes the sign of the velocity anew each step, sign(0.9 v + sign g), which equals sign g:
    there momentum does nothing for linf, and `momentum=0` is its behaviour. It also returns the last iterate;
    here the image of highest loss is returned.

    Costs at most `steps` + 1 forward and `steps` backward passes.

    Args:
        objective: what to ascend, for the B samples.
        images: (B, 3, H, W) float32 clean images in [0, 1].
        threat: the ball to stay in.
        steps: gradient steps, >= 0.
        step_size: length of a step in the threat model's norm, pixel units of [0, 1].
        momentum: share of the velocity kept from step to step, 0 for plain PGD.
        init: (B, 3, H, W) float32 start, moved into the ball first; default the clean images.
        stop_when_fooled: whether a fooled sample leaves the batch with the image that fooled.

    Raises:
        ValueError: negative steps or step_size; images outside [0, 1]; init of another shape.
        TypeError: images are not float32.
    """
    if steps < 0 or not step_size >= 0:
        raise ValueError(f"steps and step_size must be >= 0, got {steps} and {step_size}")
    current = checked_start(images, init, threat)
    ledger = Ledger(current, stop_when_fooled=stop_when_fooled)
    rows = torch.arange(len(images), device=images.device)
    velocity = torch.zeros_like(current)
    for _ in range(steps):
        if len(rows) == 0:
            return ledger.outcome()
        progress, gradient = evaluate_with_gradient(objective, current, rows, skip_fooled=stop_when_fooled)
        _, standing = ledger.record(rows, current, progress, gradient)
        if not standing.all():
            rows, current, gradient, velocity = (t[standing] for t in (rows, current, gradient, velocity))
        velocity = momentum * velocity + _unit_l1(gradient)
        current = threat.project(current + step_size * threat.steepest(velocity), images[rows])
    if len(rows) > 0:
        ledger.record(rows, current, evaluate(objective, current, rows))
    return ledger.outcome()


def _unit_l1(gradient: Tensor) -> Tensor:
    """Each image's gradient (b, 3, H, W) over the sum of its absolute entries; zero stays zero."""
    total = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
    return gradient / total.clamp_min(torch.finfo(torch.float32).tiny)
