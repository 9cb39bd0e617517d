"""What `benchmarks/attacks.py` measures against: the peers' own code, and a plain loop at batch size 1.

The plain loop is written from the description of the method, on purpose without anything that makes it fast: one
image at a time, every step of every round taken, the result counted after the round.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.objective import Objective
from attacks.threat import ThreatModel
from bench.running.load import Setup
from tasks.base import Sample


@dataclass
class Count:
    """Gradient evaluations: rows of all backward passes that reached the image tower."""

    gradients: int = 0


@contextmanager
def counted(tower: nn.Module) -> Iterator[Count]:
    """Count what goes backward through a tower's patch embedding, whoever asks for it."""
    count = Count()

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        def add(gradient: Tensor) -> None:
            count.gradients += len(gradient)

        if output.requires_grad:
            output.register_hook(add)

    handle = tower.conv1.register_forward_hook(watch)  # type: ignore[operator, union-attr]
    try:
        yield count
    finally:
        handle.remove()


class Logits(nn.Module):
    """A bound zero-shot classifier as the module that the peers expect."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.encoder = setup.victim.encoder  # type: ignore[attr-defined]
        self.logits: Callable[[Tensor], Tensor] = setup.victim.logits  # type: ignore[attr-defined]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K)."""
        return self.logits(images)


def pixels_of(setup: Setup) -> Tensor:
    """(N, 3, H, W): all images in one tensor, for those that know nothing of batches."""
    return setup.images[range(len(setup.samples))]


def labels_of(setup: Setup) -> Tensor:
    """(N,) class indices, on the images' device."""
    names = setup.task.dataset.classnames  # type: ignore[attr-defined]
    return torch.tensor([names.index(sample.references[0]) for sample in setup.samples], device=setup.images.device)


def pyautoattack(setup: Setup, threat: ThreatModel, steps: int) -> float:
    """Robust accuracy in percent that APGD-CE and APGD-T of pyautoattack leave: its own code and defaults."""
    from pyautoattack import AutoAttack

    model, labels = Logits(setup), labels_of(setup)
    attack = AutoAttack(
        model,
        norm="Linf",
        eps=threat.eps,
        seed=0,
        device=str(labels.device),
        version="custom",
        attacks=["apgd-ce", "apgd-t"],
    )
    attack.verbose = False
    attack.apgd.n_restarts, attack.apgd_targeted.n_restarts = 1, 1  # as its version "standard" has it
    attack.apgd_targeted.n_target_classes = min(9, len(setup.task.dataset.classnames) - 1)  # type: ignore[attr-defined]
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = steps
    _, predicted = attack.run_standard_evaluation(pixels_of(setup), labels, batch_size=250)
    return 100 * float((predicted == labels).float().mean())


def torchattacks(setup: Setup, threat: ThreatModel, steps: int) -> float:
    """Robust accuracy in percent that APGD (cross-entropy), then APGDT of torchattacks leave."""
    from torchattacks import APGD, APGDT

    model, pixels, labels = Logits(setup), pixels_of(setup), labels_of(setup)
    classes = min(10, len(setup.task.dataset.classnames))  # type: ignore[attr-defined]
    attacks = (
        APGD(model, norm="Linf", eps=threat.eps, steps=steps, n_restarts=1, seed=0, loss="ce"),
        APGDT(model, norm="Linf", eps=threat.eps, steps=steps, n_restarts=1, seed=0, n_classes=classes),
    )
    with torch.no_grad():
        robust = (model(pixels).argmax(1) == labels).nonzero().flatten()
    for attack in attacks:
        if len(robust) == 0:
            break
        images = attack(pixels[robust], labels[robust])
        with torch.no_grad():
            robust = robust[model(images).argmax(1) == labels[robust]]
    return 100 * len(robust) / len(labels)


# ---- The plain loop --------------------------------------------------------------------------------------


def plain_apgd(objective: Objective, clean: Tensor, start: Tensor, eps: float, steps: int) -> Tensor:
    """APGD on one image (1, 3, H, W) in its published form (Croce & Hein 2020, section 3), first step eps.

    All steps are taken, whatever happens; the image of highest loss is returned.
    """
    row = torch.zeros(1, dtype=torch.int64)

    def look(image: Tensor) -> tuple[float, Tensor]:
        leaf = image.clone().requires_grad_()
        loss = objective(leaf, row).loss
        return float(loss.detach()), torch.autograd.grad(loss.sum(), leaf)[0]

    def project(image: Tensor) -> Tensor:
        return image.clamp(clean - eps, clean + eps).clamp(0, 1)

    window, shrink, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    image = previous = project(start)
    loss, gradient = look(image)
    best_loss, best_image, best_gradient = loss, image, gradient
    losses, step, since, halved, reviewed = [loss], eps, 0, True, loss
    for done in range(steps):
        ahead = project(image + step * gradient.sign())
        share = 1.0 if done == 0 else 0.75
        following = project(image + share * (ahead - image) + (1 - share) * (image - previous))
        previous, image = image, following
        loss, gradient = look(image)
        losses.append(loss)
        if loss > best_loss:
            best_loss, best_image, best_gradient = loss, image, gradient
        since += 1
        if since == window:
            rises = sum(losses[-k] > losses[-k - 1] for k in range(1, window + 1))
            stuck = not halved and best_loss <= reviewed
            halved = rises <= 0.75 * window or stuck
            if halved:
                step, image, gradient = step / 2, best_image, best_gradient
            reviewed, since, window = best_loss, 0, max(window - shrink, shortest)
    return best_image


@dataclass
class PlainLoop:
    """One sample at a time through the rounds of the ensemble, or towards a target text."""

    setup: Setup
    eps: float
    steps: int

    def score(self, image: Tensor, sample: Sample) -> float:
        """Ask, and score the answer."""
        return self.setup.task.score(self.setup.victim.predict(image, [sample])[0].text, sample)

    def attack(self, sample: Sample, clean: Tensor, start: Tensor, goal: str) -> Tensor:
        """One round."""
        return plain_apgd(self.setup.victim.objective(clean, [sample], goal), clean, start, self.eps, self.steps)

    def ensemble(self, sample: Sample, clean: Tensor) -> float:
        """The worst score of a question: five answers, again from the worst image, then two target texts."""
        task = self.setup.task
        worst, image, goal = self.score(clean, sample), clean, "reference-0"
        rounds = [*(f"reference-{n}" for n in range(5)), "again", "target:maybe", "target:Word"]
        for current in rounds:
            if task.broken(worst, sample):
                break
            again = current == "again"
            wanted = goal if again else current
            if not task.applies(wanted, sample):
                continue
            found = self.attack(sample, clean, image if again else clean, wanted)
            score = self.score(found, sample)
            if score < worst:
                worst, image, goal = score, found, wanted
        return worst

    def stealth(self, sample: Sample, clean: Tensor) -> float:
        """The success (100 or 0) of one long climb towards the sample's target."""
        reached = self.score(clean, sample)
        if self.setup.task.broken(reached, sample):
            return reached
        return max(reached, self.score(self.attack(sample, clean, clean, "target"), sample))

    def run(self, one: Callable[[Sample, Tensor], float]) -> float:
        """Mean score over all samples."""
        scores = [one(sample, self.setup.images[[k]]) for k, sample in enumerate(self.setup.samples)]
        return sum(scores) / len(scores)
