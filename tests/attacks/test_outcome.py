"""The ledger: which image of which sample is kept, and who leaves the attack."""

import math

import pytest
import torch

from attacks.objective import Progress
from attacks.outcome import Ledger
from tests.toys import toy_images

NAN = math.nan


def look(loss: list[float], fooled: list[bool]) -> Progress:
    return Progress(torch.tensor(loss), torch.tensor(fooled))


@pytest.mark.parametrize("stop", [True, False])
def test_a_fooling_image_of_lower_loss_is_kept_only_if_fooling_ends_the_attack(stop):
    first, second = toy_images(2, seed=1), toy_images(2, seed=2)
    ledger, rows = Ledger(first, stop_when_fooled=stop), torch.arange(2)
    ledger.record(rows, first, look([3.0, 3.0], [False, False]))
    improved, active = ledger.record(rows, second, look([2.0, 4.0], [True, False]))
    assert improved.tolist() == [False, True]
    assert active.tolist() == [not stop, True]
    outcome = ledger.outcome()
    assert torch.equal(outcome.images, torch.stack([(second if stop else first)[0], second[1]]))
    assert outcome.loss.tolist() == [2.0 if stop else 3.0, 4.0]
    assert outcome.fooled.tolist() == [stop, False]


def test_a_better_image_that_does_not_fool_takes_its_word_on_fooling_with_it():
    images = toy_images(1)
    ledger, rows = Ledger(images, stop_when_fooled=False), torch.arange(1)
    ledger.record(rows, images, look([1.0], [True]))
    ledger.record(rows, images, look([2.0], [False]))
    assert ledger.outcome().fooled.tolist() == [False]


def test_equal_losses_keep_the_earlier_image():
    ledger, rows = Ledger(toy_images(1), stop_when_fooled=True), torch.arange(1)
    ledger.record(rows, toy_images(1), look([1.0], [False]))
    improved, _ = ledger.record(rows, toy_images(1, seed=5), look([1.0], [False]))
    assert not improved.any()
    assert torch.equal(ledger.outcome().images, toy_images(1))


@pytest.mark.parametrize("loss", [NAN, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_claims_nothing(loss):
    ledger, rows = Ledger(toy_images(2), stop_when_fooled=False), torch.arange(2)
    ledger.record(rows, toy_images(2), look([1.0, 1.0], [True, True]))
    improved, active = ledger.record(rows, toy_images(2, seed=5), look([loss, 0.5], [True, True]))
    assert improved.tolist() == [False, False]
    assert active.tolist() == [False, True]
    outcome = ledger.outcome()
    assert outcome.failed.tolist() == [True, False]
    assert outcome.fooled.tolist() == [False, True]
    assert outcome.loss[0].isnan()
    assert torch.equal(outcome.images, toy_images(2))


def test_rows_name_the_samples_and_only_wanted_gradients_are_counted():
    start, seen = toy_images(4), toy_images(2, seed=5)
    ledger = Ledger(start, stop_when_fooled=True)
    _, active = ledger.record(
        torch.tensor([3, 1]), seen, look([1.0, 2.0], [False, True]), gradient=torch.ones_like(seen)
    )
    assert active.tolist() == [True, False]
    outcome = ledger.outcome()
    assert outcome.evaluations.tolist() == [0, 0, 0, 1]
    assert outcome.fooled.tolist() == [False, True, False, False]
    assert torch.equal(outcome.images, torch.stack([start[0], seen[1], start[2], seen[0]]))


def test_a_gradient_whose_sum_overflows_is_finite_and_one_infinite_entry_is_not():
    images, gradient = toy_images(3), torch.zeros(3, 3, 8, 8)
    gradient[0] = 3e38
    gradient[1, 0, 0, 0], gradient[1, 0, 0, 1] = math.inf, -math.inf
    ledger = Ledger(images, stop_when_fooled=True)
    _, active = ledger.record(torch.arange(3), images, look([1.0] * 3, [False] * 3), gradient)
    assert active.tolist() == [True, False, True]
    assert ledger.outcome().failed.tolist() == [False, True, False]


@pytest.mark.parametrize("stop", [True, False])
def test_a_gradient_that_nobody_needs_may_be_anything(stop):
    images = toy_images(1)
    ledger = Ledger(images, stop_when_fooled=stop)
    ledger.record(torch.arange(1), images, look([1.0], [True]), torch.full_like(images, NAN))
    outcome = ledger.outcome()
    assert outcome.fooled.tolist() == [stop]
    assert outcome.failed.tolist() == [not stop]
    assert outcome.evaluations.tolist() == [int(not stop)]
