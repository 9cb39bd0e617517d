"""A third-party package: one encoder, one task, one attack and a kind of step, each named by an entry point."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from attacks.kinds import StepContext
from attacks.objective import Objective, evaluate
from attacks.outcome import Outcome
from attacks.presets import AttackStep, Preset
from attacks.threat import ThreatModel
from bench.config import TaskPlan
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import load_encoder
from tasks.base import Dataset
from tasks.protocol import STRICT, Protocol
from tasks.zeroshot import ZeroShot

TWO_STEPS = Preset(
    "two steps of PGD, then one random image",
    (
        AttackStep("pgd-2", "pgd", 2, "untargeted", "random", 0.5),
        AttackStep("guess", "guess", 1, "untargeted", "random", 0.0),
    ),
)


def guess(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """A kind of attack that looks at its random start and leaves it at that."""
    rows = torch.arange(len(images), device=images.device)
    loss, fooled = evaluate(objective, context.init, rows)
    return Outcome(context.init, loss, fooled, ~loss.isfinite(), torch.zeros_like(rows))


class Blurred(Encoder):
    """The miniature CLIP behind a 3 x 3 blur."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False))


def blurred() -> Encoder:
    plain = load_encoder("clip")
    return Blurred(plain.visual, plain.preprocessing, plain.text)


class Warmth(ZeroShot):
    """Warm or cold colours: a two-class question of its own on the suite's images."""

    name = "warmth"
    version = 1
    plan = TaskPlan(("mini-colour",), 12, "two-steps")

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        super().__init__(dataset, protocol)
