"""Test-time counterattack: the victim moves the image away from where it stands, before it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

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
    exponentially; elsewhere the start alone is added. Of a fine-tuned encoder that share is taken from the original
    one, as the authors' code does: fine-tuning for robustness makes every embedding steady.

    Attributes:
        eps: most that a pixel is changed, in 1/255.
        step: in 1/255.
        steps: of the counterattack.
        tau: share below which an embedding counts as suspiciously steady.
        beta: growth of the weights from step to step.
        tau_of: whose embeddings that share is taken of: "original", the encoder from which the one at hand was
            fine-tuned; or "own".
    """

    eps: float = 4.0
    step: float = 1.0
    steps: int = 2
    tau: float = 0.2
    beta: float = 2.0
    tau_of: Literal["original", "own"] = "original"

    about: ClassVar[str] = (
        "TTC, test-time counterattack (CVPR 2025); options eps, step, steps, tau, beta, tau_of: original or own"
    )
    randomised: ClassVar[bool] = True
    own_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 0 or self.eps < 0:
            raise UsageError(f"ttc: steps and eps must be at least 0, not {self.steps} and {self.eps}")

    @property
    def needs_original(self) -> bool:
        """Unless the share is taken of the encoder at hand."""
        return self.tau_of == "original"

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The image and its counterattack, in [0, 1]. Signs have no gradient: what is left is the identity's."""
        return (images + self._counterattack(images.detach(), see, draws)).clamp(0, 1)

    def _counterattack(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        eps = self.eps / 255
        with torch.no_grad():
            clean = see(images)
        delta = self._boxed(images, eps * (2 * draws.uniform(images) - 1))
        tried, steady = [delta], torch.zeros(len(images), dtype=torch.bool, device=images.device)
        other = see.original if self.needs_original else None
        for number in range(self.steps):
            moved, gradient = _away(see, images, delta, clean)
            if number == 0:
                share = moved / clean.norm(dim=-1) if other is None else _share_moved(other, images, delta)
                steady = share < self.tau
            delta = self._boxed(images, (delta + self.step / 255 * gradient.sign()).clamp(-eps, eps))
            tried.append(delta)
        weights = torch.softmax(self.beta * torch.arange(len(tried), dtype=torch.float32), 0).to(images.device)
        mixed = (torch.stack(tried) * weights[:, None, None, None, None]).sum(0)
        return torch.where(steady[:, None, None, None], mixed, tried[0])

    def _boxed(self, images: Tensor, delta: Tensor) -> Tensor:
        return (images + delta).clamp(0, 1) - images


def _share_moved(look: Callable[[Tensor], Tensor], images: Tensor, delta: Tensor) -> Tensor:
    """By which share of its length (B,) an embedding moves."""
    with torch.no_grad():
        clean = look(images)
        share: Tensor = (look(images + delta) - clean).norm(dim=-1) / clean.norm(dim=-1)
    return share


def _away(see: See, images: Tensor, delta: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """How far (B,) an embedding has moved, and the gradient (B, 3, H, W) of its square."""
    leaf = delta.detach().requires_grad_()
    with torch.enable_grad():
        squared = (see(images + leaf) - clean).square().sum(-1)
        (gradient,) = torch.autograd.grad(squared.sum(), leaf)
    return squared.detach().sqrt(), gradient
