"""From outside: a black-box kind of attack with a loss curve and an option, and an engine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from attacks.kinds import AttackKind, Option, StepContext
from attacks.objective import Objective, Progress, evaluate
from attacks.outcome import Ledger, Outcome
from attacks.threat import ThreatModel
from bench.config import RunConfig
from bench.running.loop import execute


def corners(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Try random corners of the ball."""
    rows, streams = torch.arange(len(images)), [torch.Generator().manual_seed(seed) for seed in context.seeds]
    ledger = Ledger(images, stop_when_fooled=False)
    for _ in range(context.step.options.get("tries", 4)):
        signs = torch.stack([torch.randn(images.shape[1:], generator=stream) for stream in streams]).sign()
        candidates = threat.project(images + threat.eps * signs, images)
        found: Progress = evaluate(objective, candidates, rows)
        ledger.record(rows, candidates, found)
    return ledger.outcome()


CORNERS = AttackKind(
    corners,
    "random corners of the ball",
    white_box=False,
    loss_curve=True,
    options={"tries": Option("a whole number above 0", lambda value: type(value) is int and value > 0)},
)


class Backwards:
    """An engine that carries out the last run first, and notes what it did."""

    def __init__(self, *, jobs: int | None, progress: bool) -> None:
        self.configs: Sequence[RunConfig] = ()

    def submit(self, configs: Sequence[RunConfig]) -> None:
        self.configs = configs

    def watch(self) -> list[Path]:
        done = [execute(config) for config in reversed(self.configs)]
        for place, directory in enumerate(done):
            (directory / "backwards.txt").write_text(str(place))
        return done[::-1]
