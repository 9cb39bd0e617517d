"""The threat model: projection, random starts, distances and membership, against numbers done by hand."""

import math

import pytest
import torch

from attacks.threat import PIXEL_ULP, ThreatModel, checked_start
from tests.toys import generators, toy_images

BALLS = [
    ThreatModel("linf", 4 / 255),
    ThreatModel("linf", 0.3),
    ThreatModel("l2", 0.5),
    ThreatModel("l2", 3.0),
]


def one_image(*pixels: float) -> torch.Tensor:
    """(1, 3, 1, 1) image."""
    return torch.tensor(pixels).view(1, 3, 1, 1)


@pytest.mark.parametrize("eps", [-1 / 255, math.nan, math.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_that_is_no_radius_is_refused_by_name(norm, eps):
    with pytest.raises(ValueError, match=str(eps)):
        ThreatModel(norm, eps)


def test_eps_in_grey_levels_is_refused():
    with pytest.raises(ValueError, match=r"pixel units.*4/255"):
        ThreatModel("linf", 4)


def test_the_pixel_box_is_the_widest_linf_ball_and_no_bound_of_an_l2_ball():
    assert ThreatModel("linf", 1.0).eps == 1.0
    assert ThreatModel("l2", 1.5).eps == 1.5
    with pytest.raises(ValueError, match="pixel units"):
        ThreatModel("linf", 1.5)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="l1"):
        ThreatModel("l1", 0.1)  # type: ignore[arg-type]


def test_linf_projection_by_hand():
    projected = ThreatModel("linf", 0.25).project(one_image(0.9, -0.5, 0.6), one_image(0.5, 0.125, 0.5))
    torch.testing.assert_close(projected, one_image(0.75, 0.0, 0.6), rtol=0, atol=0)


def test_l2_projection_by_hand():
    # delta (0.3, 0, 0.4) has length 0.5; at radius 0.25 it halves, and 0.9 + 0.2 is cut by the box.
    projected = ThreatModel("l2", 0.25).project(one_image(0.4, 0.5, 1.3), one_image(0.1, 0.5, 0.9))
    torch.testing.assert_close(projected, one_image(0.25, 0.5, 1.0))


@pytest.mark.parametrize("threat", BALLS, ids=str)
@pytest.mark.parametrize("spread", [0.01, 0.3, 10.0])
def test_projection_lands_in_ball_and_box_and_stays(threat, spread):
    clean = toy_images(16).round(decimals=1)
    clean[0], clean[1] = 0.0, 1.0
    candidate = clean + spread * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    projected = threat.project(candidate, clean)
    assert threat.contains(projected, clean).all()
    torch.testing.assert_close(threat.project(projected, clean), projected, rtol=0, atol=1e-7)
    if spread == 10.0:
        assert not threat.contains(candidate, clean).any()


@pytest.mark.parametrize("eps", [0.5, 2.0, 20.0])
def test_projection_at_full_resolution_is_contained(eps):
    random = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 224, 224, generator=random)
    candidate = clean + torch.randn(clean.shape, generator=random)
    threat = ThreatModel("l2", eps)
    assert threat.contains(threat.project(candidate, clean), clean).all()


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_projection_leaves_allowed_images_bit_for_bit(threat):
    clean = toy_images(4)
    inside = clean + 0.9 * threat.eps * threat.steepest(torch.randn(clean.shape))
    inside = inside.clamp(0, 1)
    assert torch.equal(threat.project(inside, clean), inside)


def test_steepest_is_the_unit_direction():
    gradient = torch.tensor([3.0, 0.0, -4.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(ThreatModel("linf", 0.1).steepest(gradient), one_image(1.0, 0.0, -1.0))
    torch.testing.assert_close(ThreatModel("l2", 0.1).steepest(gradient), one_image(0.6, 0.0, -0.8))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_vanishing_gradient_keeps_its_direction_and_zero_gives_none(norm):
    threat = ThreatModel(norm, 0.1)
    gradient = torch.tensor([3.0, 0.0, -4.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(threat.steepest(gradient * 1e-30), threat.steepest(gradient))
    assert torch.equal(threat.steepest(gradient * 0), gradient * 0)


@pytest.mark.parametrize("threat", BALLS[::2], ids=str)
def test_random_starts_have_length_eps_and_differ(threat):
    clean = toy_images(6)  # far enough from the box for the small balls
    start = threat.random_start(clean, generators(6))
    torch.testing.assert_close(threat.distance(start, clean), torch.full((6,), threat.eps), rtol=1e-5, atol=0)
    assert len({tuple((s - c).flatten().tolist()) for s, c in zip(start, clean, strict=True)}) == 6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_random_start_is_the_generators_noise_stretched_to_the_radius(norm):
    clean = toy_images(3)
    starts = ThreatModel(norm, 0.1).random_start(clean, generators(3))
    for start, image, generator in zip(starts, clean, generators(3), strict=True):
        if norm == "linf":  # as AutoAttack draws: uniform on [-1, 1], the largest entry brought to 1
            noise = 2 * torch.rand(3, 8, 8, generator=generator) - 1
            noise /= noise.abs().max()
        else:
            noise = torch.randn(3, 8, 8, generator=generator)
            noise /= noise.square().sum().sqrt()
        assert noise.min() < 0 < noise.max()
        torch.testing.assert_close(start, image + 0.1 * noise)


def test_no_images_have_no_random_starts():
    assert ThreatModel("linf", 0.1).random_start(toy_images(0), []).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_random_starts_depend_on_the_generator_only(threat):
    clean = toy_images(5)
    together = threat.random_start(clean, generators(5))
    assert threat.contains(together, clean).all()
    for index in reversed(range(5)):
        alone = threat.random_start(clean[index : index + 1], generators(5)[index : index + 1])
        assert torch.equal(alone[0], together[index])


def test_one_generator_a_sample():
    with pytest.raises(ValueError, match="3 for 2"):
        ThreatModel("linf", 0.1).random_start(toy_images(2), generators(3))


def test_distance_by_hand():
    clean, candidate = one_image(0.5, 0.5, 0.5), one_image(0.8, 0.5, 0.1)
    torch.testing.assert_close(ThreatModel("linf", 1.0).distance(candidate, clean), torch.tensor([0.4]))
    torch.testing.assert_close(ThreatModel("l2", 1.0).distance(candidate, clean), torch.tensor([0.5]))


def test_distance_does_not_broadcast():
    with pytest.raises(ValueError, match="shapes differ"):
        ThreatModel("l2", 1.0).distance(toy_images(2), toy_images(1))


@pytest.mark.parametrize(
    ("pixel", "allowed"),
    [(0.9, True), (0.9 + 3e-7, False), (math.nan, False), (math.inf, False), (-math.inf, False)],
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_contains_at_the_edge_of_the_ball(norm, pixel, allowed):
    clean = one_image(0.5, 0.5, 0.5)
    assert ThreatModel(norm, 0.4).contains(one_image(pixel, 0.5, 0.5), clean).tolist() == [allowed]


@pytest.mark.parametrize(("pixel", "allowed"), [(1.0, True), (1 + PIXEL_ULP, False), (-1e-9, False), (0.0, True)])
def test_contains_has_an_exact_box(pixel, allowed):
    threat = ThreatModel("linf", 1.0)
    assert threat.contains(one_image(pixel, 0.5, 0.5), one_image(0.5, 0.5, 0.5)).tolist() == [allowed]


@pytest.mark.parametrize("pixel", [0.05, 1.5, math.nan])
def test_contains_judges_each_image_alone(pixel):
    clean = toy_images(3)
    candidate = clean.clone()
    candidate[1, 0, 0, 0] += pixel
    assert ThreatModel("linf", 0.04).contains(candidate, clean).tolist() == [True, False, True]


def test_each_pixel_may_round_so_that_a_long_l2_delta_may_round_more():
    """Three pixels: an l2 ball may be exceeded by sqrt(3) ulp, an linf ball by one."""
    clean = one_image(0.5, 0.5, 0.5)
    for ulps, allowed in ((0.5, (True, True)), (1.5, (False, True)), (3.0, (False, False))):
        candidate = one_image(0.9 + ulps * PIXEL_ULP, 0.5, 0.5)
        found = [ThreatModel(norm, 0.4).contains(candidate, clean).item() for norm in ("linf", "l2")]
        assert tuple(found) == allowed


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_empty_ball_holds_the_clean_image_alone(norm):
    threat, clean = ThreatModel(norm, 0.0), one_image(0.5, 0.5, 0.5)
    assert threat.contains(clean, clean).all()
    assert not threat.contains(torch.nextafter(clean, clean + 1), clean).any()


def test_a_half_precision_ball_is_caught():
    clean = torch.arange(256).div(255).repeat(3, 1).view(1, 3, 16, 16)
    candidate = (clean.half() + torch.tensor(4 / 255).half()).clamp(0, 1).float()
    assert not ThreatModel("linf", 4 / 255).contains(candidate, clean).any()


def test_a_start_is_checked():
    threat, clean = ThreatModel("linf", 0.1), toy_images(2)
    with pytest.raises(TypeError, match="float16"):
        checked_start(clean.half(), None, threat)
    with pytest.raises(TypeError, match="float16"):
        checked_start(clean, clean.half(), threat)
    with pytest.raises(ValueError, match="normalisation"):
        checked_start(clean * 3, None, threat)
    with pytest.raises(ValueError, match="init"):
        checked_start(clean, clean[:1], threat)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        checked_start(clean[0], None, threat)


def test_a_start_is_moved_into_the_ball_and_a_broken_pixel_passes():
    threat, clean = ThreatModel("linf", 0.1), toy_images(2)
    assert torch.equal(checked_start(clean, None, threat), clean)
    torch.testing.assert_close(checked_start(clean, clean + 0.3, threat), clean + 0.1)
    broken = clean.clone()
    broken[1, 0, 0, 0] = math.nan
    start = checked_start(broken, None, threat)
    assert start.isnan().sum() == 1
    assert torch.equal(start[0], clean[0])
    assert not checked_start(clean.clone().requires_grad_(), None, threat).requires_grad
