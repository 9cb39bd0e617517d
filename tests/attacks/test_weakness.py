"""Common weakness: against an independent reading of the algorithm, and its spectrum against a Fourier transform."""

import math

import pytest
import torch

from attacks.kinds import StepContext
from attacks.objective import Ensemble, gradient_of_all
from attacks.presets import PRESETS, AttackStep
from attacks.threat import ThreatModel
from attacks.weakness import COMMON_WEAKNESS, in_frequencies, in_pixels
from tests.toys import LinearObjective, toy_images, trained_toy

THREAT = ThreatModel("linf", 8 / 255)


def run(objective, images, steps, **options):
    step = AttackStep("w", "common-weakness", steps, "untargeted", "clean", 1 / 8, options=options)
    COMMON_WEAKNESS.check(step)
    return COMMON_WEAKNESS.run(objective, images, THREAT, StepContext(step, images, list(range(len(images)))))


def as_written(models, images, steps):
    """Algorithm 1 of arXiv 2303.09105 with momentum, image by image; r = eps / 15, beta = 250, mu = 1."""
    eps, row = THREAT.eps, torch.tensor([0])

    def clip(shown, clean):
        return shown.clamp(clean - eps, clean + eps).clamp(0, 1)

    def gradient(model, shown):
        return gradient_of_all(model, shown, row)[1]

    results = []
    for clean in images.split(1):
        shown, outer = clean, torch.zeros_like(clean)
        for _ in range(steps):
            inner = clip(shown - eps / 15 * sum(gradient(m, shown) for m in models).sign(), clean)
            momentum = torch.zeros_like(clean)
            for model in models:
                slope = gradient(model, inner)
                momentum = momentum + slope / slope.norm()
                inner = clip(inner + 250 * momentum, clean)
            moved = inner - shown
            outer = outer + moved / moved.abs().sum()
            shown = clip(shown + eps / 8 * outer.sign(), clean)
        results.append(shown)
    return torch.cat(results)


def test_it_is_the_algorithm_as_written():
    images = toy_images(3)
    weights = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    models = tuple(map(LinearObjective, weights))
    found = run(Ensemble(models, (0.5, 0.5)), images, 3)
    torch.testing.assert_close(found.images, as_written(models, images, 3))
    assert found.evaluations.tolist() == [3 * 3] * 3


def test_it_breaks_a_classifier_alone_and_in_changed_spectra():
    from attacks.objective import Classification

    toy = trained_toy()
    threat, steps = ThreatModel("linf", 24 / 255), 8
    goal = Classification(toy.model, toy.labels[:12])
    for looks in (0, 3):
        step = AttackStep("w", "common-weakness", steps, "untargeted", "clean", 1 / 8, options={"spectrum": looks})
        images = toy.images[:12]
        found = COMMON_WEAKNESS.run(goal, images, threat, StepContext(step, images, list(range(12))))
        assert found.fooled.sum() >= 6
        assert threat.contains(found.images, images).all()
        assert found.evaluations.tolist() == [steps * 2 * max(looks, 1)] * 12


def by_fourier(values):
    """The orthonormal DCT-II of the last dimension: the Fourier transform of the mirrored row, turned and scaled."""
    size = values.shape[-1]
    mirrored = torch.fft.fft(torch.cat([values, values.flip(-1)], -1))[..., :size]
    turned = (mirrored * torch.exp(-0.5j * math.pi / size * torch.arange(size))).real
    scale = torch.full((size,), math.sqrt(2 / size))
    scale[0] = math.sqrt(1 / size)
    return turned / 2 * scale


def test_the_spectrum_is_the_orthonormal_cosine_transform():
    images = torch.rand(2, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    spectra = in_frequencies(images)
    torch.testing.assert_close(spectra, by_fourier(by_fourier(images).transpose(2, 3)).transpose(2, 3))
    torch.testing.assert_close(in_pixels(spectra), images)


def test_the_preset_has_the_published_constants():
    (step,) = PRESETS["ssa-cwa"].steps
    assert (step.steps, step.first_step * 16, step.options, step.goal) == (500, 1.0, {"spectrum": 20}, "pooled")
    with pytest.raises(ValueError, match="option spectrum of kind 'common-weakness' must be a whole number from 0"):
        run(LinearObjective(torch.ones(3, 8, 8)), toy_images(1), 1, spectrum=-1)
