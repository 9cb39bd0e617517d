"""Image towers as the trainer calls them: pixels in [0, 1] in, `Features` out, for any architecture of open_clip."""

from collections.abc import Iterator
from contextlib import contextmanager

from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder, precise
from bench.train.objectives import Features, TrainingObjective

READ_BY_LLAVA = -2  # hidden states that LLaVA-1.5 reads: the output of the last block but one


class EmbeddingTower(nn.Module):
    """Only the embedding; ``tower`` maps images (b, 3, H, W) to (b, D)."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Features:
        """Features without patches, in float32 at least."""
        return Features(precise(self.tower(images)))


class PatchTower(nn.Module):
    """Embedding and patch tokens in one forward pass, of a ViT.

    Raises:
        UsageError: the tower has no patch tokens.
    """

    def __init__(self, tower: Encoder) -> None:
        super().__init__()
        self.tower = tower
        self._index = tower.block(READ_BY_LLAVA)

    def forward(self, images: Tensor) -> Features:
        """Features with patches (b, N, W), in float32 at least."""
        tower = self.tower
        found = tower.visual.forward_intermediates(
            (images - tower.mean) / tower.std, indices=[self._index], output_fmt="NLC"
        )
        return Features(precise(found["image_features"]), precise(found["image_intermediates"][0]))


def feature_tower(tower: nn.Module, objective: TrainingObjective) -> nn.Module:
    """What the objective reads of a tower, and no more."""
    if "patches" not in objective.needs:
        return EmbeddingTower(tower)
    if not isinstance(tower, Encoder):
        raise UsageError("patch tokens need an Encoder")
    return PatchTower(tower)


def trained_part(tower: nn.Module) -> nn.Module:
    """What is trained and saved: an Encoder's image tower, else the module itself."""
    return tower.visual if isinstance(tower, Encoder) else tower


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and weights without gradients, for attacks; afterwards as before."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    training = [m for m in module.modules() if m.training]
    module.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for part in training:
            part.training = True


def train_mode(module: nn.Module, *, batch_statistics: bool) -> None:
    """Training mode for dropout and stochastic depth; batch normalisation trains only with ``batch_statistics``."""
    module.train()
    if not batch_statistics:
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.eval()


def checkpoint_activations(tower: nn.Module) -> None:
    """Recompute activations in the backward pass: less memory, about a third more work.

    Raises:
        UsageError: the architecture does not offer it.
    """
    setter = getattr(trained_part(tower), "set_grad_checkpointing", None)
    if setter is None or isinstance(trained_part(tower), ModifiedResNet):  # whose setter does nothing
        raise UsageError(f"{type(trained_part(tower)).__name__} has no activation checkpointing; leave that option out")
    setter(True)
