"""Random gradient-free ascent on what a model says: no gradient, a number of answers per step."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.kinds import AttackKind, Option, StepContext
from attacks.objective import Objective, evaluate
from attacks.outcome import Ledger, Outcome
from attacks.threat import ThreatModel, checked_start

QUERIES = 100  # per step; Zhao et al. 2023 (arXiv 2305.16934), section 4
SIGMA = 8.0  # size of the changes in 1/255, likewise


def run_queries(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "queries": the query-based part of AttackVLM (Zhao et al. 2023, arXiv 2305.16934), equation 4.

    The gradient is estimated from the losses of images changed by random signs. Unlike the released code, losses are
    compared with that of the current image, not of the first one, and the best image is kept.
    """
    streams = [torch.Generator().manual_seed(seed) for seed in context.seeds]
    options, step = context.step.options, context.step
    sigma, queries = options.get("sigma", SIGMA) / 255, options.get("queries", QUERIES)
    start = checked_start(images, context.init, threat)
    ledger = Ledger(start, stop_when_fooled=context.stop_when_fooled)
    current, rows = start, torch.arange(len(images), device=images.device)
    for _ in range(step.steps):
        here = evaluate(objective, current, rows)
        _, active = ledger.record(rows, current, here)
        rows, current, loss = rows[active], current[active], here.loss[active]
        if len(rows) == 0:
            return ledger.outcome()
        slope = torch.zeros_like(current)
        for _ in range(queries):
            signs = torch.stack([_signs(current.shape[1:], streams[row]) for row in rows.tolist()]).to(current.device)
            seen = evaluate(objective, (current + sigma * signs).clamp(0, 1), rows).loss
            slope += (seen - loss)[:, None, None, None] * signs / sigma
        move = step.first_step * threat.eps * threat.steepest(slope / queries)
        current = threat.project(current + move, images[rows])
    ledger.record(rows, current, evaluate(objective, current, rows))
    return ledger.outcome()


def _signs(shape: torch.Size, stream: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=stream) - 1


QUERY = AttackKind(
    run_queries,
    "ascent on gradients estimated from answers: the query part of AttackVLM (arXiv 2305.16934)",
    white_box=False,
    options={
        "queries": Option("a whole number above 0", lambda value: type(value) is int and value > 0),
        "sigma": Option(
            "a number above 0", lambda value: isinstance(value, int | float) and type(value) is not bool and value > 0
        ),
    },
)
