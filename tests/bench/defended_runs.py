"""Whole runs on a defended toy classifier, and defences that are at fault on purpose."""

import sys
from dataclasses import dataclass, replace

import torch

from attacks.adaptive import adaptive_steps
from attacks.presets import AttackStep
from bench import registry
from bench.models.defences.base import Defence, ImageDefence, with_gradient_of
from bench.models.defences.chain import Defended
from bench.models.defences.load import load_chain
from tasks.zeroshot import ZeroShot
from tests.bench.toy_runs import NAMES, RADIUS, Linear, ToyEncoder, make_setup, run

STEPS = (AttackStep("climb", "apgd", 40, "untargeted", "random", 2.0),)


@dataclass(frozen=True)
class Killing(Defence):
    """Cuts the gradient off."""

    about = "a control"

    def embed(self, images, see, draws):
        return see(images).detach()


@dataclass(frozen=True)
class Shrinking(Defence):
    """Is the identity with a gradient a billion times too small, as ten steps of CLIPure are."""

    about = "a control"

    def embed(self, images, see, draws):
        plain = see(images)
        return (plain - 1e-9 * plain).detach() + 1e-9 * plain


@dataclass(frozen=True)
class Misled(Defence):
    """Is the identity, with a stand-in that leads the wrong way."""

    about = "a control"

    def embed(self, images, see, draws):
        return see(images)

    def surrogate(self, images, see, draws):
        return with_gradient_of(see(images), -see(images))


@dataclass(frozen=True)
class Secret(ImageDefence):
    """Draws without saying so."""

    about = "a control"

    def purify(self, images, see, draws):
        return images + 0.1 * torch.randn_like(images)


@dataclass(frozen=True)
class Coupled(ImageDefence):
    """Takes what the images of a batch have in common away."""

    about = "a control"

    def purify(self, images, see, draws):
        return images - 0.3 * images.mean(0, keepdim=True)


@dataclass(frozen=True)
class Shaky(ImageDefence):
    """Draws, and says so."""

    about = "a control"
    randomised = True
    own_gradient = True

    def purify(self, images, see, draws):
        return images + 0.15 * draws.normal(images)


class _Text:
    scale = 1.0


class ToyTask(ZeroShot):
    """Zero-shot classification by the toy's own logits."""

    def bind(self, model):
        return Linear(model, torch.eye(10), 1.0, NAMES)


def put_defence(monkeypatch, kind):
    """Let a defence of this module have a line of the registry."""
    monkeypatch.setitem(registry.DEFENCES, kind.__name__.lower(), f"{__name__}:{kind.__name__}")
    return kind.__name__.lower()


def defended_setup(names, eps=(RADIUS,)):
    plain = make_setup("adaptive-toy", eps=eps)
    encoder = ToyEncoder()
    encoder.text = _Text()
    task = ToyTask(plain.task.dataset)
    undefended = task.bind(encoder)
    victim = Defended.around(undefended, task, encoder, load_chain(names))
    chain = victim.chain
    steps = adaptive_steps(STEPS, randomised=chain.randomised, own_gradient=chain.own_gradient)
    protocol = {"precision": "float32", "defence": ",".join(names)}
    header = replace(plain.header, protocol=protocol, attack_steps=[step.as_data() for step in steps])
    return replace(plain, task=task, victim=victim, surrogate=undefended, encoder=encoder, header=header)


def defended_run(tmp_path, monkeypatch, *names, **changes):
    monkeypatch.setattr(sys.modules["attacks.adaptive"], "QUERIES", 60)
    eps = changes.get("eps", (RADIUS,))
    setup = defended_setup(names, eps)
    return run(tmp_path, STEPS, setup=setup, monkeypatch=monkeypatch, defence=tuple(names), **changes)
