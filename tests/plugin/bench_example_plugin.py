"""A third-party package: one encoder, one task, one attack, each named by an entry point."""

from torch import Tensor
from torch.nn.functional import avg_pool2d

from attacks.presets import AttackStep, Preset
from bench.config import TaskPlan
from bench.models.encoder import Encoder
from bench.models.load import load_encoder
from tasks.base import Dataset
from tasks.protocol import STRICT, Protocol
from tasks.zeroshot import ZeroShot

TWO_STEPS = Preset("two steps of PGD", (AttackStep("pgd-2", "pgd", 2, "untargeted", "random", 0.5),))


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
