"""Test-time counterattack: the victim moves the image away from where it stands, before it answers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.models.defences.base import ImageDefence, See
from bench.models.defences.draws import Draws


@dataclass(frozen=True)
class TTC(ImageDefence):
    """TTC (Xing et al., CVPR 2025), by its published description.

    Steps of the sign of the gradient drive the embedding away from that of the image shown, from a random start. Where
    that start changes the embedding by less than a share `tau`, the steps are averaged with weights that grow
    exponentially; elsewhere the start alone is added. For fine-tuned encoders the authors take tau from the original
    CLIP; here it is the defended encoder's own.

    Attributes:
        eps: most that a pixel is changed, in 1/255.
        step: in 1/255.
        steps: of the counterattack.
        tau: share below which an embedding counts as suspiciously steady.
        beta: growth of the weights from step to step.
    """

    eps: float = 4.0
    step: float = 1.0
    steps: int = 2
    tau: float = 0.2
    beta: float = 2.0

    about: ClassVar[str] = "TTC, test-time counterattack (CVPR 2025); options eps, step, steps, tau, beta"
    randomised: ClassVar[bool] = True
    own_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 0 or self.eps < 0:
            raise UsageError(f"ttc: steps and eps must be at least 0, not {self.steps} and {self.eps}")

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The image and its counterattack, in [0, 1]. Signs have no gradient: what is left is the identity's."""
        return (images + self._counterattack(images.detach(), see, draws)).clamp(0, 1)

    def _counterattack(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        eps = self.eps / 255
        with torch.no_grad():
            clean = see(images)
        delta = self._boxed(images, eps * (2 * draws.uniform(images) - 1))
        tried, steady = [delta], torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for number in range(self.steps):
            moved, gradient = _away(see, images, delta, clean)
            if number == 0:
                steady = moved / clean.norm(dim=-1) < self.tau
            delta = self._boxed(images, (delta + self.step / 255 * gradient.sign()).clamp(-eps, eps))
            tried.append(delta)
        weights = torch.softmax(self.beta * torch.arange(len(tried), dtype=torch.float32), 0).to(images.device)
        mixed = (torch.stack(tried) * weights[:, None, None, None, None]).sum(0)
        return torch.where(steady[:, None, None, None], mixed, tried[0])

    def _boxed(self, images: Tensor, delta: Tensor) -> Tensor:
        return (images + delta).clamp(0, 1) - images


def _away(see: See, images: Tensor, delta: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """How far (B,) an embedding has moved, and the gradient (B, 3, H, W) of its square."""
    leaf = delta.detach().requires_grad_()
    with torch.enable_grad():
        squared = (see(images + leaf) - clean).square().sum(-1)
        (gradient,) = torch.autograd.grad(squared.sum(), leaf)
    return squared.detach().sqrt(), gradient
