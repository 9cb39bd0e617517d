"""A defence from outside: less colour."""

from dataclasses import dataclass

from torch import Tensor

from bench.models.defences.base import ImageDefence, See
from bench.models.defences.draws import Draws


@dataclass(frozen=True)
class Paler(ImageDefence):
    """Mixes an image with its own grey."""

    share: float = 0.5

    about = "mixes an image with its own grey; option share"
    own_gradient = True

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        return images + self.share * (images.mean(1, keepdim=True) - images)

    def purify_surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        return self.purify(images, see, draws)
