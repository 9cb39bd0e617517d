"""Every defence: an answer depends on its own image and draws alone, and what it does is what is written of it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from bench import registry
from bench.errors import UsageError
from bench.models.defences.base import See
from bench.models.defences.draws import NOTHING_DRAWN, Draws
from bench.models.defences.images import ResizePad
from bench.models.defences.load import load_chain, load_defence
from tests.toys import toy_images, trained_toy

COUNT = 5
DRAWS = Draws(tuple(range(100, 100 + COUNT)))
SPECS = ["identity", "jpeg", "bit-depth", "resize-pad", "noise", "smooth", "ttc", "clipure"]
every_defence = pytest.mark.parametrize("spec", SPECS)


class Text:
    """A text tower in which every text has the same embedding."""

    scale = 1.0

    def classifier(self, classnames, templates):
        torch.manual_seed(0)
        return normalize(torch.randn(10, len(classnames)), dim=0)


def see() -> See:
    return See(trained_toy().model, Text())


def images():
    return toy_images(COUNT)


def embedded(spec, shown=None, draws=DRAWS, gradient="own"):
    return load_chain([spec]).embed(images() if shown is None else shown, see(), draws, gradient)


def test_each_defence_of_the_registry_is_tested_here_or_in_a_file_of_its_own():
    assert {*SPECS, "r-tpt"} == registry.DEFENCES.keys()


def alone(spec):
    return torch.cat([embedded(spec, images()[k : k + 1], Draws((DRAWS.seeds[k],))) for k in range(COUNT)])


@every_defence
def test_an_answer_does_not_depend_on_its_batch(spec):
    torch.testing.assert_close(embedded(spec), alone(spec))


def test_the_released_quirk_of_clipure_couples_rows():
    spec = "clipure?norm=batch&steps=3"
    assert (embedded(spec) - alone(spec)).abs().max() > 1e-2


@every_defence
def test_draws_matter_where_a_defence_says_so_and_nowhere_else(spec):
    other = embedded(spec, draws=Draws(tuple(range(COUNT))))
    assert torch.equal(embedded(spec), other) is not load_defence(spec).randomised
    assert torch.equal(embedded(spec), embedded(spec))


@every_defence
def test_the_stand_in_has_the_same_values_and_a_gradient(spec):
    shown = images().requires_grad_()
    found = embedded(spec, shown, gradient="surrogate")
    torch.testing.assert_close(found, embedded(spec), rtol=1e-5, atol=1e-6)
    found.square().sum().backward()
    assert (shown.grad.flatten(1).norm(dim=1) > 0).all()


@every_defence
def test_a_defence_with_its_own_gradient_gives_that_of_the_stand_in(spec):
    if not load_defence(spec).own_gradient:
        return
    gradients = []
    for way in ("own", "surrogate"):
        shown = images().requires_grad_()
        embedded(spec, shown, gradient=way).square().sum().backward()
        gradients.append(shown.grad)
    torch.testing.assert_close(*gradients)


def test_the_identity_moves_no_bit():
    shown, plain = images().requires_grad_(), images().requires_grad_()
    found, bare = embedded("identity", shown), see()(plain)
    assert torch.equal(found, bare)
    for value in (found, bare):
        value.square().sum().backward()
    assert torch.equal(shown.grad, plain.grad)


def test_jpeg_is_pillows():
    pixels = (images() * 255).round().to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    found = load_defence("jpeg?quality=40").purify(images(), see(), NOTHING_DRAWN)
    assert torch.equal(found[0], expected)
    assert (found[0] - images()[0]).abs().max() > 0.01


def test_fewer_bits():
    levels = torch.tensor([0.0, 0.2, 0.4, 0.51, 0.9]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    found = load_defence("bit-depth?bits=1").purify(levels, see(), NOTHING_DRAWN)
    assert found[0, 0, 0].tolist() == [0, 0, 0, 1, 1]


def test_another_size_on_a_black_ground():
    white = torch.ones(COUNT, 3, 32, 32)
    torch.testing.assert_close(ResizePad(1.0).purify(white, see(), DRAWS), white)
    found = ResizePad(0.5).purify(white, see(), DRAWS)
    shares = found.mean((1, 2, 3))
    assert ((shares > 0.2) & (shares < 1)).all()
    assert shares.std() > 0.01
    places = {tuple(one[0].nonzero().float().mean(0).round().tolist()) for one in found}
    assert len(places) > 1


def test_noise_has_the_size_that_is_asked_for():
    grey = torch.full((COUNT, 3, 64, 64), 0.5)
    noise = load_defence("noise?sigma=16").purify(grey, see(), DRAWS) - grey
    assert noise.std() * 255 == pytest.approx(16, rel=0.05)


def test_smoothing_of_features_averages_unit_embeddings_of_noisy_copies():
    draws = Draws((7,))
    inner = load_chain(["smooth?copies=3"]).embed(images()[:1], see(), draws, "own")
    own = draws.of_part(0)  # of the first defence
    copies = [images()[:1] + 8 / 255 * own.of_part(k).normal(images()[:1]) for k in range(3)]
    expected = sum(normalize(trained_toy().model(copy), dim=-1) for copy in copies) / 3
    torch.testing.assert_close(inner, expected)


def share_moved(model, image, delta):
    clean, moved = model(image[None])[0], model((image + delta)[None])[0]
    return (moved - clean).norm() / clean.norm()


def counterattacked(image, start, tau, steps=2, tau_of=None):
    """TTC on one image, written down once more: plain loops, no batch."""
    model, eps, step = trained_toy().model, 4 / 255, 1 / 255
    clean = model(image[None])[0]
    delta = (image + eps * (2 * start - 1)).clamp(0, 1) - image
    share = share_moved(tau_of or model, image, delta)
    deltas = [delta]
    for _ in range(steps):
        leaf = delta.clone().requires_grad_()
        (model((image + leaf)[None])[0] - clean).square().sum().backward()
        delta = (delta + step * leaf.grad.sign()).clamp(-eps, eps)
        delta = (image + delta).clamp(0, 1) - image
        deltas.append(delta)
    weights = [np.exp(2 * k) for k in range(len(deltas))]
    mixed = sum(w / sum(weights) * d for w, d in zip(weights, deltas, strict=True))
    return (image + (mixed if share < tau else deltas[0])).clamp(0, 1)


@pytest.mark.parametrize("tau", [0.0, 1e6])
def test_ttc_is_what_its_paper_says(tau):
    found = load_defence(f"ttc?tau={tau}").purify(images(), see(), DRAWS)
    starts = DRAWS.uniform(images())
    for one, image, start in zip(found, images(), starts, strict=True):
        torch.testing.assert_close(one, counterattacked(image, start, tau), rtol=0, atol=2e-7)


@pytest.mark.parametrize("tau_of", ["original", "own"])
def test_ttc_asks_the_original_encoder_whether_an_image_is_steady(tau_of):
    """Of the toy's own embeddings all are steady at this tau, of those of the original, a loud one, none."""
    starts, model = DRAWS.uniform(images()), trained_toy().model

    def loud(shown):
        return torch.sin(1000 * shown.flatten(1))

    shares = [
        [share_moved(one, image, 4 / 255 * (2 * start - 1)) for image, start in zip(images(), starts, strict=True)]
        for one in (model, loud)
    ]
    tau = float(max(shares[0]) + min(shares[1])) / 2
    assert max(shares[0]) < tau < min(shares[1])
    found = load_defence(f"ttc?tau={tau}&tau_of={tau_of}").purify(images(), See(model, Text(), loud), DRAWS)
    for one, image, start in zip(found, images(), starts, strict=True):
        expected = counterattacked(image, start, tau, tau_of=loud if tau_of == "original" else None)
        torch.testing.assert_close(one, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_clipure_turns_towards_the_empty_text_and_back(steps):
    found = embedded(f"clipure?steps={steps}").double().detach().numpy()
    text = Text().classifier([""], [])[:, 0].double().numpy()
    for row, embedding in zip(found, trained_toy().model(images()).double().detach().numpy(), strict=True):
        u = embedding / np.linalg.norm(embedding)
        plain = u
        for _ in range(steps):
            gradient = (u @ text) * u - text
            u = u - 30 * gradient / np.linalg.norm(gradient)
            u = u / np.linalg.norm(u)
        np.testing.assert_allclose(row, u, atol=1e-4)
        assert (abs(row @ plain) > 0.95) == (steps == 10), "an even number of steps ends where it began"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("tcc", "did you mean 'ttc'"),
        ("ttc?epss=1", "did you mean 'eps'"),
        ("ttc?steps=two", "steps takes a whole number, not 'two'"),
        ("jpeg?quality=0", "quality must be from 1 to 95"),
        ("clipure?norm=column", "row or batch"),
        ("bit-depth?bits=9", "bits must be from 1 to 8"),
    ],
)
def test_what_is_wrong_with_a_spec(spec, words):
    with pytest.raises(UsageError, match=words.replace("?", ".")):
        load_defence(spec)


def test_a_plugin_that_is_no_defence(monkeypatch):
    monkeypatch.setitem(registry.DEFENCES, "odd", "tests.toys:trained_toy")
    with pytest.raises(UsageError, match="no class made of"):
        load_defence("odd")
