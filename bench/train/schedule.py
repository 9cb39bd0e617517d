"""Learning rates and the length of a run. Never imports torch."""

import math
from dataclasses import dataclass

from bench.errors import UsageError

LOG_EVERY = 10  # updates


@dataclass(frozen=True)
class Schedule:
    """Optimisation settings: learning rate at step n is linear up to ``warmup`` and a half cosine to 0 at ``steps``."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 0
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise UsageError(f"steps and batch must be at least 1; got {self.steps} and {self.batch}")
        if not 0 <= self.warmup <= self.steps:
            raise UsageError(f"the warm-up must take between 0 and all {self.steps} steps; got {self.warmup}")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise UsageError(
                "the learning rate must be positive and the weight decay not negative; got "
                f"{self.learning_rate} and {self.weight_decay}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of update ``step`` (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def logged(step: int, schedule: Schedule) -> bool:
    """Whether a step's figures are shown: every tenth, and the last."""
    return step % LOG_EVERY == 0 or step + 1 == schedule.steps
