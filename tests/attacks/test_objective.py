"""Losses against hand-computed numbers and AutoAttack's own; the objectives; the gradient helper."""

import math
from dataclasses import replace

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from attacks.objective import (
    Classification,
    NotDifferentiableError,
    Progress,
    TargetedClassification,
    cross_entropy,
    dlr,
    evaluate,
    evaluate_with_gradient,
    runner_up,
    side_by_side,
    squared_l2,
    targeted_dlr,
    with_margin,
)
from tests.toys import ConvClassifier, LinearObjective, toy_images, trained_toy

LOGITS = torch.tensor([[4.0, 1.0, 2.0, 0.0], [4.0, 1.0, 2.0, 0.0]])


def random_logits(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(classes)
    return 5 * torch.randn(64, classes, generator=random), torch.randint(classes, (64,), generator=random)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    expected = torch.tensor([math.log(4), math.log(4 / 3)])
    torch.testing.assert_close(cross_entropy(logits, torch.tensor([0, 1])), expected)


def test_dlr_by_hand():
    # right: -(4 - 2) / (4 - 1); wrong: -(1 - 4) / (4 - 1)
    torch.testing.assert_close(dlr(LOGITS, torch.tensor([0, 1])), torch.tensor([-2 / 3, 1.0]))


def test_targeted_dlr_by_hand():
    # -(z_y - z_t) / (4 - (1 + 0) / 2)
    loss = targeted_dlr(LOGITS, torch.tensor([0, 0]), torch.tensor([2, 3]))
    torch.testing.assert_close(loss, torch.tensor([-2 / 3.5, -4 / 3.5]))


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_dlr_agrees_with_autoattack(classes):
    logits, labels = random_logits(classes)
    official = APGDAttack(lambda x: x, eps=0.1).dlr_loss(logits, labels)
    torch.testing.assert_close(dlr(logits, labels), official)


@pytest.mark.parametrize("classes", [4, 5, 10])
def test_targeted_dlr_agrees_with_autoattack(classes):
    logits, labels = random_logits(classes)
    targets = runner_up(logits, labels, 2)
    attack = APGDAttack_targeted(lambda x: x, eps=0.1)
    attack.y_target = targets
    torch.testing.assert_close(targeted_dlr(logits, labels, targets), attack.dlr_loss_targeted(logits, labels))


def test_dlr_ignores_shift_and_scale():
    logits, labels = random_logits(6)
    torch.testing.assert_close(dlr(1000 * logits + 7, labels), dlr(logits, labels), rtol=1e-4, atol=1e-5)


def test_too_few_classes_are_refused_in_words():
    with pytest.raises(ValueError, match=r"DLR needs at least 3 classes, got 2"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"targeted DLR needs at least 4 classes, got 3"):
        targeted_dlr(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([1]))


def test_squared_l2_by_hand():
    embeddings = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(
        squared_l2(embeddings, torch.tensor([[4.0, 6.0], [0.0, 0.0]])), torch.tensor([25.0, 0.0])
    )


def test_runner_up_ranks_the_other_classes():
    assert [runner_up(LOGITS[:1], torch.tensor([0]), rank).item() for rank in (1, 2, 3)] == [2, 1, 3]
    assert [runner_up(LOGITS[:1], torch.tensor([2]), rank).item() for rank in (1, 2, 3)] == [0, 1, 3]
    for rank in (0, 4):
        with pytest.raises(ValueError, match=r"1\.\.3 for 4 classes"):
            runner_up(LOGITS, torch.tensor([0, 0]), rank)


def test_classification_follows_rows():
    toy = trained_toy()
    objective = Classification(toy.model, toy.labels, "dlr")
    rows = torch.tensor([5, 2, 11])
    loss, fooled = objective(toy.images[rows], rows)
    torch.testing.assert_close(loss, dlr(toy.model(toy.images[rows]), toy.labels[rows]))
    assert not fooled.any()
    assert toy.labels[0] != toy.labels[1]
    assert objective(toy.images[:2], torch.tensor([1, 0])).fooled.all()  # each other's labels


def test_any_wrong_answer_fools_a_targeted_objective():
    labels, targets = torch.tensor([0, 1]), torch.tensor([3, 3])
    objective = TargetedClassification(lambda _: LOGITS, labels, targets)
    assert objective(toy_images(2), torch.arange(2)).fooled.tolist() == [False, True]


def test_targets_follow_rows():
    labels, targets = torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3])
    loss, _ = TargetedClassification(lambda _: LOGITS, labels, targets)(toy_images(2), torch.tensor([2, 1]))
    torch.testing.assert_close(loss, torch.tensor([-4 / 3.5, -2 / 3.5]))


def test_a_target_can_be_followed_by_its_margin():
    """The label's logit is 4, those of the targets 3, 1 and 1: how far each is from winning, whatever others are."""
    logits = torch.tensor([[4.0, 3.0, 1.0, 1.0]] * 3)
    labels, targets = torch.zeros(3, dtype=torch.int64), torch.tensor([1, 2, 3])
    objective = TargetedClassification(lambda _: logits[:2], labels, targets, "margin")
    assert objective(toy_images(2), torch.tensor([0, 2])).loss.tolist() == [-1.0, -3.0]
    both = side_by_side([replace(objective, targets=targets), objective])
    assert (both.loss, both.targets.tolist()) == ("margin", [1, 2, 3, 1, 2, 3])
    with pytest.raises(ValueError, match=r"loss must be one of \('dlr', 'margin'\) towards a target, got 'ce'"):
        replace(objective, loss="ce")


def test_a_plain_look_builds_no_graph():
    objective = Classification(ConvClassifier(), torch.tensor([3, 1]))  # its parameters want gradients
    assert not evaluate(objective, toy_images(2), torch.arange(2)).loss.requires_grad


def test_bad_objectives_are_refused():
    with pytest.raises(ValueError, match="hinge"):
        Classification(lambda x: x, torch.tensor([0]), "hinge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target"):
        TargetedClassification(lambda x: x, torch.tensor([0, 1]), torch.tensor([1, 1]))


def test_gradient_is_per_sample_and_spares_the_parameters():
    model, images, labels = ConvClassifier(), toy_images(4), torch.tensor([3, 1, 4, 1])
    with torch.no_grad():  # a caller's no_grad must not switch the attack off
        progress, gradient = evaluate_with_gradient(
            Classification(model, labels), images, torch.arange(4), skip_fooled=False
        )
    assert not progress.loss.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    for row in range(4):
        leaf = images[row : row + 1].clone().requires_grad_()
        cross_entropy(model(leaf), labels[row : row + 1]).sum().backward()
        torch.testing.assert_close(gradient[row], leaf.grad[0])


def test_no_gradient_is_spent_on_fooled_or_broken_rows():
    def objective(images, rows):
        loss = images.sum(dim=(1, 2, 3)) * torch.tensor([1.0, 1.0, math.nan])[rows]
        return Progress(loss, rows == 1)

    images, rows = toy_images(3), torch.arange(3)
    _, gradient = evaluate_with_gradient(objective, images, rows, skip_fooled=True)
    assert torch.equal(gradient[:2], torch.stack([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)]))
    _, gradient = evaluate_with_gradient(objective, images, rows, skip_fooled=False)
    assert torch.equal(gradient[:2], torch.ones(2, 3, 8, 8))


def test_a_detached_loss_is_refused():
    objective = LinearObjective(torch.ones(3, 8, 8))
    with pytest.raises(NotDifferentiableError):
        evaluate_with_gradient(
            lambda images, rows: objective(images.detach(), rows),
            toy_images(2),
            torch.arange(2),
            skip_fooled=True,
        )


@pytest.mark.parametrize(
    "progress",
    [
        Progress(torch.zeros(()), torch.zeros(2, dtype=torch.bool)),
        Progress(torch.zeros(2), torch.zeros((), dtype=torch.bool)),
        Progress(torch.zeros(2), torch.zeros(2)),
    ],
    ids=["a mean", "one word for all", "numbers"],
)
def test_anything_but_one_loss_and_one_word_a_sample_is_refused(progress):
    with pytest.raises(ValueError, match=r"loss \(b,\) and fooled \(b,\) bool for b = 2"):
        evaluate(lambda images, rows: progress, toy_images(2), torch.arange(2))


def test_losses_of_half_precision_logits_are_taken_in_float32():
    logits, labels, targets = torch.tensor([[4.0, 1.3, 2.1, 0.2]]), torch.tensor([0]), torch.tensor([2])
    half = logits.half()
    for loss in (cross_entropy, dlr, lambda z, y: targeted_dlr(z, y, targets), lambda z, y: squared_l2(z, half * 3)):
        assert torch.equal(loss(half, labels), loss(half.float(), labels))
    found = evaluate(lambda images, rows: Progress(half[0, :1], rows > 0), toy_images(1), torch.arange(1))
    assert found.loss.dtype == torch.float32


def test_equal_logits_have_a_dlr():
    logits, labels = torch.ones(1, 4), torch.tensor([0])
    assert dlr(logits, labels).tolist() == targeted_dlr(logits, labels, torch.tensor([1])).tolist() == [0.0]


def test_only_targeted_goals_on_one_model_go_side_by_side():
    labels = torch.tensor([0, 0])
    goals = [TargetedClassification(abs, labels, labels + rank) for rank in (1, 2)]
    assert side_by_side(goals[:1]) is goals[0]
    assert side_by_side(goals).labels.tolist() == [0, 0, 0, 0]
    for other in (TargetedClassification(round, labels, labels + 1), Classification(abs, labels)):
        with pytest.raises(TypeError, match="side by side"):
            side_by_side([*goals, other])


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_a_classifier_by_its_margin_whatever_its_loss_was(loss):
    labels = torch.tensor([0, 1])
    found, fooled = with_margin(Classification(lambda _: LOGITS, labels, loss))(toy_images(2), torch.tensor([0, 1]))
    assert found.tolist() == [2.0 - 4.0, 4.0 - 1.0]
    assert fooled.tolist() == [False, True]
    other = LinearObjective(torch.ones(3))
    assert with_margin(other) is other
