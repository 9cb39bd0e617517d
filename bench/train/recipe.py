"""Recipes of adversarial fine-tuning: constants of the paper, flaws of its code by name. Never imports torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from bench.errors import UsageError
from bench.train.schedule import Schedule

Attack = Literal["pgd", "apgd"]
ATTACKS = get_args(Attack)

FLAWS = {
    "first-update-at-full-rate": (
        "the published code sets the learning rate after each update, so that update 1 runs at the full rate before "
        "the warm-up begins; corrected: update 1 is warmed up like the others"
    ),
    "first-gradient-outside-box": (
        "the random start is not clipped to [0, 1] before the first gradient is taken; corrected: it is"
    ),
    "inert-momentum": (
        "PGD takes the sign of its velocity anew each step, sign(0.9 v + sign g), which is sign g wherever g is not "
        "zero; corrected: no momentum at all, which is what that amounts to"
    ),
    "last-iterate": (
        "PGD returns its last iterate; corrected: for each image the iterate of highest loss, at the price of one more "
        "forward pass"
    ),
    "apgd-misclassified": (
        "APGD returns the last iterate whose largest embedding dimension differs from the class id, as if dimensions "
        "were classes; corrected: the iterate of highest loss"
    ),
    "apgd-normalised": (
        "APGD compares normalised embeddings of the trained tower with a target that is not normalised; corrected: it "
        "attacks the loss that the update minimises"
    ),
    "apgd-clean-start": (
        "APGD starts at the clean image, where FARE's gradient vanishes while the tower is still the original; "
        "corrected: a random start"
    ),
    "apgd-first-checkpoint": (
        "APGD's first checkpoint compares the loss after the first step with 0, so that a positive loss counts as one "
        "rise more (TeCoA's; FARE's start has loss 0 anyway); corrected: with the loss of the start"
    ),
    "batch-norm-on-attacked": (
        "batch normalisation trains on statistics of attacked images; corrected: the original's statistics are kept, "
        "which also makes updates independent of how a batch is divided"
    ),
    "batch-norm-twice": (
        "in each update the clean images pass through the tower in training mode before the attacked ones, so that "
        "running statistics move twice; corrected: they do not move, or once with batch-norm-on-attacked alone"
    ),
    "exif-ignored": (
        "photographs are not turned as their EXIF orientation says; corrected: they are, as in evaluation"
    ),
}
"""What the code published with arXiv 2402.12336 does; the default recipe corrects each, `paper` keeps all.

One habit is not offered: that code turns NaN gradients of the attack into zeros. Here they stop the run.
"""

PAPER = Schedule(steps=20_000, batch=128, learning_rate=1e-5, warmup=1400, weight_decay=1e-4)
PAPER_TEMPLATE = "This is a photo of a {c}"
PAPER_SCALE = 100.0


@dataclass(frozen=True)
class Recipe:
    """A fine-tuning run. Radii and steps in 1/255, l-inf (arXiv 2402.12336, section 3 and appendix).

    Args:
        objective: name of a training objective.
        eps_255: radius of the inner attack.
        schedule: steps, global batch, learning rate; ``batch`` counts images over all devices and micro-batches.
        inner_steps: gradient steps of the inner attack.
        inner_step_255: length of a PGD step; it shrinks with the radius while that is ramped up.
        ramp: share of the run over which the radius grows linearly from 0.
        seed: of noise and data order.
        attack: "pgd", or "apgd" without a step length.
        clean_weight: w in (1 - w) x loss on attacked + w x loss on clean images.
        flaws: names out of `FLAWS` to reproduce.
    """

    objective: str
    eps_255: float
    schedule: Schedule
    inner_steps: int = 10
    inner_step_255: float = 1.0
    ramp: float = 0.0
    seed: int = 0
    attack: Attack = "pgd"
    clean_weight: float = 0.0
    flaws: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not 0 < self.eps_255 <= 255:
            raise UsageError(f"eps is in 1/255 and must be in (0, 255]; got {self.eps_255}")
        if self.attack not in ATTACKS:
            raise UsageError(f"attack must be one of {', '.join(ATTACKS)}; got {self.attack!r}")
        if not 0 <= self.clean_weight < 1 or not 0 <= self.ramp <= 1:
            raise UsageError(f"clean weight must be in [0, 1) and ramp in [0, 1]; got {self.clean_weight}, {self.ramp}")
        if self.inner_steps < 1 or not self.inner_step_255 > 0:
            raise UsageError(
                f"the inner attack needs steps >= 1 and a step length > 0; got {self.inner_steps}, "
                f"{self.inner_step_255}"
            )
        if unknown := sorted(set(self.flaws) - FLAWS.keys()):
            raise UsageError(f"unknown flaw {unknown[0]!r}; known: {', '.join(FLAWS)}")
        if "batch-norm-twice" in self.flaws and "batch-norm-on-attacked" not in self.flaws:
            raise UsageError("the flaw batch-norm-twice is one of batch-norm-on-attacked: give that, too")

    def radius(self, step: int) -> float:
        """Eps of one update, in pixel units."""
        grown = min(1.0, (step + 1) / (self.ramp * self.schedule.steps)) if self.ramp else 1.0
        return self.eps_255 * grown / 255

    def step_size(self, step: int) -> float:
        """Length of a PGD step of one update, in pixel units."""
        return self.inner_step_255 / 255 * self.radius(step) * 255 / self.eps_255


def paper_flaws(attack: Attack) -> tuple[str, ...]:
    """The flaws of the published code that concern an inner attack."""
    others: dict[Attack, tuple[str, ...]] = {
        "pgd": ("apgd-",),
        "apgd": ("first-gradient", "inert-momentum", "last-iterate"),
    }
    return tuple(name for name in FLAWS if not name.startswith(others[attack]))
