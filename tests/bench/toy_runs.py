"""Whole runs on a toy classifier, in milliseconds: data, model and configuration made up in memory."""

import sys
from dataclasses import asdict, replace

import torch
from PIL import Image

from attacks.objective import Progress
from attacks.presets import PRESETS, Preset
from bench import registry
from bench.config import RunConfig
from bench.data.bank import Images
from bench.records import load_run
from bench.records.worst import worst_scores
from bench.running import loop as runner
from bench.running.load import Setup
from tasks.base import Dataset, Sample
from tasks.protocol import PROTOCOLS
from tasks.zeroshot import ZeroShot, _Classifier
from tests.bench.runs import make_header
from tests.toys import trained_toy

COUNT, RADIUS = 24, 16.0
NAMES = tuple("abcdefghij")


class ToyEncoder:
    """The toy's logits as an embedding; class weights make it a zero-shot classifier."""

    def __init__(self, spoil=lambda images: images):
        self.spoil = spoil
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        return trained_toy().model(self.spoil(images))

    def patch_tokens(self, images):
        return images.flatten(2).mT  # (B, 64, 3)


class Linear(_Classifier):
    """Logits as they are: normalising them would make this another model than the toy."""

    def logits(self, images):
        return self.encoder(images)


def victim(**options):
    return Linear(ToyEncoder(**options), torch.eye(10), 1.0, NAMES)


class Boastful:
    """A victim whose objective takes every image for a success; what it answers is honest."""

    def __init__(self, honest):
        self.honest, self.encoder, self.predict = honest, honest.encoder, honest.predict

    def objective(self, images, samples, goal):
        inner = self.honest.objective(images, samples, goal)

        def claim(candidates, rows):
            progress = inner(candidates, rows)
            return Progress(progress.loss, torch.ones_like(progress.fooled))

        return claim


def put_kind(monkeypatch, name, found):
    """Let a name stand for an attack kind, as a line of the registry would."""
    attribute = f"KIND_{name}"
    monkeypatch.setattr(sys.modules[__name__], attribute, found, raising=False)
    monkeypatch.setitem(registry.ATTACK_KINDS, name, f"{__name__}:{attribute}")


def make_setup(attack, asked=None, source=None, half=None, eps=(RADIUS,)):
    toy = trained_toy()
    picture = Image.new("RGB", (8, 8))
    samples = tuple(
        Sample(f"s{k:02d}", picture, "", (NAMES[label],), f"s{k:02d}")
        for k, label in enumerate(toy.labels[:COUNT].tolist())
    )
    dataset = Dataset("toy", samples, classnames=NAMES)
    header = make_header(
        task="zeroshot", dataset="toy", metric="accuracy (%)", attack=attack, radii=eps, n_samples=COUNT, model=None
    )
    asked = asked or victim()
    source = source or asked
    images = Images(toy.images[:COUNT], torch.device("cpu"))
    return Setup(ZeroShot(dataset), asked, source, source.encoder, images, header, {}, half)


def run(tmp_path, steps, *, setup=None, monkeypatch=None, **changes):
    steps = PRESETS[steps].steps if isinstance(steps, str) else steps
    monkeypatch.setitem(PRESETS, "toy", Preset("", tuple(steps)))
    eps = changes.get("eps", (RADIUS,))
    config = RunConfig(
        suite="mini",
        encoder="toy",
        task="zeroshot",
        dataset="toy",
        samples=COUNT,
        attack="toy",
        norm="linf",
        eps=eps,
        seed=0,
        device="cpu",
        output=tmp_path,
    )
    config, setup = replace(config, **changes), setup or make_setup("toy", eps=eps)
    if config.protocol != "strict":
        chosen = {"precision": config.precision, **asdict(PROTOCOLS[config.protocol])}
        setup = replace(setup, header=replace(setup.header, protocol=chosen))
    directory = runner.carry_out(config, setup)
    return load_run(directory)


def short(preset, steps=12):
    return [replace(step, steps=steps) for step in PRESETS[preset].steps]


def robust(found, eps=RADIUS):
    return {s for s, score in worst_scores(found.header, found.records, eps).items() if score == 100}


def bare(records):
    return sorted((r.sample_id, r.step, r.radius, r.prediction, r.score, r.evaluations) for r in records)
