"""M-Attack and FOA-Attack: crops, local features, weights of models, and both attacks where the best image is known."""

from dataclasses import dataclass, replace
from itertools import permutations

import pytest
import torch
from torch.nn.functional import interpolate

from attacks.crops import CROPS, FOA, RATIO, SCALE, Cropped, cropped, distance, dynamic_weights, window
from attacks.kinds import StepContext
from attacks.objective import Classification, Ensemble, Progress
from attacks.presets import PRESETS, AttackStep
from attacks.threat import ThreatModel
from attacks.transport import centres, transport_cost
from tests.toys import toy_images

THREAT = ThreatModel("linf", 16 / 255)
KINDS = pytest.mark.parametrize("kind", [CROPS, FOA], ids=["crops", "foa"])


@dataclass
class Colours:
    """A model whose pooled feature is an image's mean colour less grey, and whose tokens are its quarters' colours."""

    targets: torch.Tensor
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def pooled(self, images):
        return (images.mean((2, 3)) - 0.5) * torch.tensor(self.gain)

    def tokens(self, images):
        return (interpolate(images, (2, 2), mode="area").flatten(2).transpose(1, 2) - 0.5) * torch.tensor(self.gain)

    def __call__(self, images, rows):
        one, other = self.pooled(images), self.pooled(self.targets[rows])
        return Progress(torch.cosine_similarity(one, other, dim=-1), torch.zeros_like(rows, dtype=torch.bool))


def flat(*colours):
    return torch.tensor(colours)[:, :, None, None].expand(-1, 3, 8, 8).contiguous()


def run(kind, objective, images, rows=None, steps=20):
    rows = range(len(images)) if rows is None else rows
    step = AttackStep("m", "crops", steps, "target-image", "clean", 1 / 16)
    return kind.run(objective, images, THREAT, StepContext(step, images, [int(r) + 3 for r in rows]))


@KINDS
def test_a_flat_image_goes_to_the_corner_of_the_ball_that_its_target_lies_in(kind):
    """Crops of flat images are flat: every step of 1/255 goes along the same signs where it sees the image."""
    image, target = flat((0.5, 0.5, 0.6)), flat((0.9, 0.1, 0.5))
    found = run(kind, Colours(target), image, steps=60)
    expected = image + THREAT.eps * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    middle = (slice(None), slice(2), slice(2, 6), slice(2, 6))  # what most crops hold
    torch.testing.assert_close(found.images[middle], expected[middle])
    assert (found.images[:, 2] < image[:, 2]).all(), "blue falls until the directions agree"
    assert found.loss > Colours(target)(image, torch.tensor([0])).loss
    assert found.evaluations.tolist() == [60]


@KINDS
def test_an_image_is_attacked_alike_in_any_batch_and_stays_in_the_ball(kind):
    images, targets = toy_images(5), toy_images(5, seed=1)
    together = run(kind, Ensemble((Colours(targets), Colours(targets, (1.0, 3.0, 0.2))), (0.7, 0.3)), images)
    assert THREAT.contains(together.images, images).all()
    for part in torch.arange(5).split(2):
        some = targets[part]
        apart = run(kind, Ensemble((Colours(some), Colours(some, (1.0, 3.0, 0.2))), (0.7, 0.3)), images[part], part)
        torch.testing.assert_close(apart.images, together.images[part], rtol=0, atol=0)


@KINDS
def test_a_goal_without_a_target_image_is_refused(kind):
    goal = Classification(lambda images: images.mean((2, 3)), torch.tensor([0]))
    with pytest.raises(ValueError, match="give the step the goal 'target-image'"):
        run(kind, goal, flat((0.5, 0.5, 0.5)))


def test_the_crops_are_those_of_the_publication():
    streams = [torch.Generator().manual_seed(n) for n in range(400)]
    found = [window(224, 224, stream) for stream in streams]
    areas = torch.tensor([tall * wide / 224**2 for _, _, tall, wide in found])
    ratios = torch.tensor([wide / tall for _, _, tall, wide in found])
    assert SCALE[0] - 0.01 < areas.min() < 0.53
    assert 0.8 < areas.max() < SCALE[1] + 0.01
    assert RATIO[0] - 0.02 < ratios.min() < ratios.max() < RATIO[1] + 0.02
    assert all(top + tall <= 224 and left + wide <= 224 for top, left, tall, wide in found)
    assert len({place[:2] for place in found}) > 300
    assert window(2, 400, streams[0]) == (0, 0, 2, 400), "no window of that shape fits: the whole image"


def test_image_and_target_are_cropped_by_windows_of_their_own_at_each_look():
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []

    class Remembers(Colours):
        def pooled(self, shown):
            seen.append(shown.detach().clone())
            return super().pooled(shown)

    look = Cropped(Remembers(images), [5])
    look(images, torch.tensor([0]))
    look(images, torch.tensor([0]))
    assert len(seen) == 4
    assert all(not torch.equal(one, other) for one, other in permutations(seen, 2))
    assert cropped(images, [torch.Generator()]).shape == images.shape


def test_the_presets_have_the_published_constants():
    for name in ("m-attack", "foa-attack"):
        (step,) = PRESETS[name].steps
        assert (step.steps, step.start, step.first_step * 16) == (300, "clean", 1.0)
    (ii,), (it,) = PRESETS["attackvlm-ii"].steps, PRESETS["attackvlm-it"].steps
    assert (ii.steps, ii.first_step * 8, ii.options, ii.goal) == (300, 1.0, {"momentum": 0.0}, "target-image")
    assert it == replace(ii, name="mf-it", goal="target-text")


# ---- Local features --------------------------------------------------------------------------------------------------


def test_centres_of_separate_clusters_are_their_means():
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    tokens = (middles[:, None] + noise).flatten(0, 1)[None].requires_grad_()
    found = centres(tokens, 3)[0]
    expected = (middles[:, None] + noise).mean(1)
    order = torch.cdist(expected, found).argmin(1)
    torch.testing.assert_close(found[order], expected)
    (gradient,) = torch.autograd.grad(found[order[0]].sum(), tokens)
    torch.testing.assert_close(gradient[0], torch.cat([torch.full((4, 2), 0.25), torch.zeros(8, 2)]))


def test_fewer_tokens_than_centres_stay_as_they_are():
    tokens = toy_images(1).flatten(2)[:, :, :5]
    found = centres(tokens, 10)
    assert found.shape == tokens.shape
    torch.testing.assert_close(found.sort(1).values, tokens.sort(1).values)


def test_transport_is_the_best_pairing_of_points():
    """Of well separated points the entropic plan is that pairing, which is found here by trying all of them."""
    points = torch.eye(4) + 0.05 * torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    others = (torch.eye(4) + 0.05 * torch.rand(4, 4, generator=torch.Generator().manual_seed(2)))[[2, 0, 3, 1]]
    cost = 1 - torch.nn.functional.normalize(points) @ torch.nn.functional.normalize(others).T
    best = min(sum(float(cost[i, j]) for i, j in enumerate(order)) / 4 for order in permutations(range(4)))
    assert float(transport_cost(points[None], others[None])) == pytest.approx(best, abs=2e-3)
    assert float(transport_cost(points[None], points[None].roll(1, 1))) == pytest.approx(0, abs=2e-3)


def test_the_weights_of_models_are_k_times_a_softmax_of_their_progress():
    now, before = torch.tensor([[0.2], [0.4], [0.3]]), torch.tensor([[0.4], [0.4], [0.2]])
    ratios = torch.tensor([0.5, 1.0, 1.5]).exp()
    torch.testing.assert_close(dynamic_weights(now, before)[:, 0], 3 * ratios / ratios.sum())


def test_local_features_tell_apart_what_the_pooled_one_cannot():
    """Quarters, and their mean colour everywhere: the pooled features agree. Centres have no places."""
    quarters = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(1)).repeat_interleave(4, 2)
    quarters = quarters.repeat_interleave(4, 3)
    mean, model = quarters.mean((2, 3), keepdim=True).expand_as(quarters), Colours(quarters)
    assert float(distance(model, mean, quarters)) > 0.05
    assert float(distance(model, quarters.flip(3), quarters)) == pytest.approx(0, abs=0.01)
