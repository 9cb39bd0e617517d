"""R-TPT: the prompt is tuned for each image, and random views of it vote."""

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.errors import UsageError
from bench.models.defences.base import ClassifierDefence, See, with_gradient_of
from bench.models.defences.draws import Draws
from bench.models.defences.prompt import Prompt
from bench.models.defences.views import augmix, numbers, picture_of, random_crop

DECAY, ADAM_EPS = 0.01, 1e-8  # of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), as PyTorch has them by default


@dataclass(frozen=True)
class RTPT(ClassifierDefence):
    """R-TPT (Sheng et al., CVPR 2025), by its published description.

    The image is rounded to 8 bits and seen together with random views of it. One step of AdamW on the words "a photo
    of a" lowers the mean entropy of the most confident views' answers. All views then vote with the tuned prompt,
    weighted by how near their embeddings are to those of their nearest neighbours.

    Nothing of this has a gradient (crops of 8-bit pixels, a choice, a step that is all but a sign). The stand-in is
    the image alone under the prompt that was tuned for it.

    Attributes:
        views: random ones beside the image.
        share: of all views, whose entropy is lowered.
        lr: of the step.
        neighbours: of a view, that its weight is the mean cosine to.
        temperature: by which these cosines become weights.
        change: "augmix", or "crop" for crops alone, as the authors use on ImageNet and its variants.
    """

    views: int = 63
    share: float = 0.1
    lr: float = 5e-3
    neighbours: int = 20
    temperature: float = 0.01
    change: Literal["augmix", "crop"] = "augmix"

    about: ClassVar[str] = (
        "R-TPT, prompts tuned for each image, views that vote (CVPR 2025), for zero-shot; options views, share, lr, "
        "neighbours, temperature, change: augmix or crop"
    )
    randomised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.views < 1 or self.neighbours < 1 or not 0 < self.share <= 1 or not self.temperature > 0:
            raise UsageError(
                "r-tpt: views and neighbours must be at least 1, share above 0 and at most 1, temperature above 0, not "
                f"{self.views}, {self.neighbours}, {self.share}, {self.temperature}"
            )

    def logits(self, images: Tensor, see: See, classnames: tuple[str, ...], draws: Draws) -> Tensor:
        """The views' vote (B, K); there is no gradient."""
        return torch.stack([voted for voted, _ in self._answers(images, see, classnames, draws)])

    def logits_surrogate(self, images: Tensor, see: See, classnames: tuple[str, ...], draws: Draws) -> Tensor:
        """The same, with the gradient of the image alone under its own tuned prompt."""
        answers = self._answers(images.detach(), see, classnames, draws)
        weights = torch.stack([weights for _, weights in answers])
        alone = self._scale(see) * torch.einsum("bd,bdk->bk", normalize(see(images), dim=-1), weights)
        return with_gradient_of(torch.stack([voted for voted, _ in answers]), alone)

    def _answers(
        self, images: Tensor, see: See, classnames: tuple[str, ...], draws: Draws
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each image the vote (K,) and the class weights (D, K) of the prompt that was tuned for it."""
        prompt = Prompt.of(see.text, classnames, "r-tpt")
        found = []
        for image, seed in zip(images.detach(), draws.seeds, strict=True):
            with torch.no_grad():
                views = normalize(see(self.seen(image, seed)), dim=-1)
            weights = prompt.weights(self._tuned(views, prompt, self._scale(see))).detach()
            vote = self._reliability(views) @ (self._scale(see) * views @ weights)
            found.append((vote, weights))
        return found

    def seen(self, image: Tensor, seed: int) -> Tensor:
        """The views (V + 1, 3, H, W) of an image (3, H, W) in [0, 1], itself first."""
        picture, draw = picture_of(image), random.Random(seed)
        views = [numbers(picture)]
        for _ in range(self.views):
            crop = random_crop(picture, draw)
            views.append(augmix(crop, draw) if self.change == "augmix" else numbers(crop))
        return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous().to(image.device)

    def _tuned(self, views: Tensor, prompt: Prompt, scale: float) -> Tensor:
        """The prompt's context (C, W) after one step that lowers the mean entropy of the most confident views."""
        with torch.enable_grad():
            context = prompt.context.clone().requires_grad_()
            answers = (scale * views @ prompt.weights(context)).log_softmax(1)
            entropy = -(answers.exp() * answers).sum(1)
            chosen = entropy.topk(max(1, int(len(views) * self.share)), largest=False).values
            (gradient,) = torch.autograd.grad(chosen.mean(), context)
        # the first step of AdamW: its means, freed of their bias, are the gradient and its square
        return context.detach() * (1 - self.lr * DECAY) - self.lr * gradient / (gradient.abs() + ADAM_EPS)

    def _reliability(self, views: Tensor) -> Tensor:
        """Weights (V,) of unit embeddings (V, D), which sum to one."""
        cosines = (views @ views.T).fill_diagonal_(-torch.inf)
        nearest = cosines.topk(min(self.neighbours, len(views) - 1), dim=1).values
        return torch.softmax(nearest.mean(1) / self.temperature, 0)

    def _scale(self, see: See) -> float:
        assert see.text is not None, "Prompt.of has refused"
        return float(see.text.scale)
