"""What is particular to APGD: its schedule, and agreement with AutoAttack sample by sample."""

from dataclasses import dataclass

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from attacks.apgd import apgd, checkpoints
from attacks.objective import Classification, Progress, TargetedClassification, runner_up
from attacks.threat import ThreatModel
from benchmarks.yardsticks import plain_apgd
from tests.toys import (
    ClassificationToy,
    ConvClassifier,
    LinearObjective,
    Perceptron,
    Scripted,
    generators,
    toy_images,
    trained_toy,
)

UP = torch.ones(3, 8, 8)
THREATS = {"linf": ThreatModel("linf", 16 / 255), "l2": ThreatModel("l2", 0.7)}
OFFICIAL_NORM = {"linf": "Linf", "l2": "L2"}

every_threat = pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS.keys())


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (0, []),
        (1, [1]),
        (10, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (50, [11, 21, 30, 38, 45]),
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        (10_000, [2200, 4100, 5700, 7000, 8000, 8700, 9300, 9900]),
    ],
)
def test_checkpoints(steps, expected):
    assert checkpoints(steps) == expected


def script(values: list[float], weights: list[torch.Tensor] | None = None) -> Scripted:
    return Scripted(torch.tensor(values)[:, None], torch.stack(weights or [UP] * len(values)))


def moves(objective: Scripted, steps: int, **options) -> list[float]:
    """Iterates of one pixel, as distances from its clean value in units of eps."""
    clean = torch.full((1, 3, 8, 8), 0.5)
    apgd(objective, clean, ThreatModel("linf", 0.25), steps=steps, **options)
    return [round(float(image[0, 0, 0, 0] - 0.5) / 0.25, 4) for image in objective.seen]


def test_moves_mix_three_quarters_of_a_step_with_a_quarter_of_the_last_move():
    # 10 steps: no checkpoint before 2 are done; step size 0.2 eps. 0.2; then 0.2 + 0.75 * 0.2 + 0.25 * 0.2.
    assert moves(script([1.0, 2.0, 3.0, 4.0] + [5.0] * 7), 10, first_step=0.2)[:3] == [0.0, 0.2, 0.4]
    turned = [UP, -UP] + [UP] * 9  # 0.2; then 0.2 - 0.75 * 0.2 + 0.25 * 0.2
    assert moves(script([1.0, 2.0, 3.0, 4.0] + [5.0] * 7, turned), 10, first_step=0.2)[:3] == [0.0, 0.2, 0.1]


def test_a_steady_rise_keeps_the_step_and_a_wavering_one_halves_it_and_goes_back():
    rising = moves(script([1.0, 2.0, 3.0, 4.0] + [5.0] * 7), 10, first_step=0.2)
    assert rising[3] == 0.6  # 0.4 + 0.75 * 0.2 + 0.25 * 0.2
    wavering = moves(script([1.0, 3.0, 2.0, 4.0] + [5.0] * 7), 10, first_step=0.2)
    # back to the best, 0.2, with half the step; the last move is counted from 0.2, the iterate before: 0.
    assert wavering[3] == round(0.2 + 0.75 * 0.1, 4)


def test_going_back_restores_the_gradient_of_the_best_image():
    weights = [UP, -UP, UP] + [UP] * 8  # the gradient at the best image, the second one, points down
    path = moves(script([1.0, 3.0, 2.0, 4.0] + [5.0] * 7, weights), 10, first_step=0.2)
    assert path[2] == 0.1  # as in the test of mixing
    assert path[3] == round(0.2 - 0.75 * 0.1, 4)


def test_the_first_checkpoint_compares_with_the_start_unless_told_otherwise():
    # 4 steps: the first checkpoint is after 1 step. Loss 5 at the start, then 1: above zero, but no rise.
    falling = [5.0, 1.0, 1.0, 1.0, 1.0]
    assert moves(script(falling), 4, first_step=0.2)[2] == round(0.75 * 0.1, 4)
    reference = moves(script(falling), 4, first_step=0.2, first_checkpoint="reference")
    assert reference[2] == 0.4  # not halved: goes on from 0.2
    # Negative losses, as of targeted goals: a rise from -5 to -1 is no rise to the reference.
    rising = [-5.0, -1.0, -1.0, -1.0, -1.0]
    assert moves(script(rising), 4, first_step=0.2)[2] == 0.4
    halved = moves(script(rising), 4, first_step=0.2, first_checkpoint="reference")
    assert halved[2] == round(0.2 + 0.75 * 0.1 + 0.25 * 0.2, 4)


def test_a_missing_new_best_halves_only_after_a_window_that_did_not():
    # 50 steps, checkpoints after 11, 21, 30. Window 1 always rises (10 of 11 > 8.25 at least). Window 2 rises
    # 9 times in 10 but stays below the best: only the rule of the missing new best can halve there.
    first = [float(n) for n in range(12)]  # calls 0..11, best 11
    second = [-20.0 + n for n in range(10)]  # calls 12..21: one fall, then rises
    objective = script(first + second + [50.0] * 29)
    path = moves(objective, 50, first_step=0.01)
    assert path[22] == pytest.approx(path[11] + 0.75 * 0.005 + 0.25 * (path[11] - path[20]), abs=2e-4)


def test_step_sizes_belong_to_samples():
    values = torch.tensor([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]] + [[5.0, 5.0]] * 8)
    objective = Scripted(values, torch.stack([UP] * 11))
    clean = torch.full((2, 3, 8, 8), 0.5)
    apgd(objective, clean, ThreatModel("linf", 0.25), steps=10, first_step=0.2)
    pixels = ((objective.seen[3][:, 0, 0, 0] - 0.5) / 0.25).tolist()
    assert pixels == pytest.approx([0.6, 0.275], abs=1e-4)


def official(toy: ClassificationToy, threat: ThreatModel, start: torch.Tensor, loss: str, steps: int):
    """Best losses (B,) and robust mask (B,) of AutoAttack's APGD from the given start."""
    attack = APGDAttack(
        toy.model, n_iter=steps, norm=OFFICIAL_NORM[threat.norm], eps=threat.eps, loss=loss, device="cpu"
    )
    attack.init_hyperparam(toy.images)
    _, robust, best_loss, _ = attack.attack_single_run(toy.images, toy.labels, x_init=start)
    return best_loss, robust


@dataclass(frozen=True)
class RoundedAsOfficial(ThreatModel):
    """The l2 geometry in AutoAttack's order of operations.

    The two differ in the last bit only, but a near tie at a checkpoint can then part two paths for good. With
    the same rounding, all that is left to differ is the algorithm.
    """

    start: torch.Tensor  # AutoAttack takes a start as it is

    def project(self, candidate, clean, box=None):
        if torch.equal(candidate, self.start):
            return candidate
        delta = candidate - clean
        return (clean + self.steepest(delta) * l2_length(delta).clamp_max(self.eps)).clamp(0, 1)

    def steepest(self, gradient):
        return gradient / (l2_length(gradient) + 1e-12)


def l2_length(delta: torch.Tensor) -> torch.Tensor:
    return delta.square().flatten(1).sum(dim=1).sqrt()[:, None, None, None]


def assert_agreement(objective, toy, threat, start, steps, expected):
    best_loss, robust = expected
    options = {"steps": steps, "init": start, "first_checkpoint": "reference"}
    stopped = apgd(objective, toy.images, threat, **options)
    assert torch.equal(stopped.fooled, ~robust.bool())
    assert 0.1 < stopped.fooled.float().mean() < 0.9, "samples that all end alike prove little"
    rounded = threat if threat.norm == "linf" else RoundedAsOfficial("l2", threat.eps, start)
    assert torch.equal(apgd(objective, toy.images, rounded, **options).fooled, ~robust.bool())
    climbed = apgd(objective, toy.images, rounded, stop_when_fooled=False, **options)
    torch.testing.assert_close(climbed.loss, best_loss, rtol=1e-5, atol=1e-6)


NETWORKS = {"smooth": (ConvClassifier, 0), "kinked": (Perceptron, 1), "other-data": (ConvClassifier, 2)}
every_network = pytest.mark.parametrize(("network", "seed"), NETWORKS.values(), ids=NETWORKS.keys())


@every_threat
@every_network
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [10, 37, 100])
def test_agrees_with_autoattack(threat, network, seed, loss, steps):
    toy = trained_toy(kind=network, seed=seed)
    start = threat.random_start(toy.images, generators(len(toy.images), seed))
    expected = official(toy, threat, start, loss, steps)
    assert_agreement(Classification(toy.model, toy.labels, loss), toy, threat, start, steps, expected)


@every_threat
@every_network
@pytest.mark.parametrize(("rank", "widen"), [(1, 1.0), (3, 1.5), (9, 1.7)])
def test_targeted_attack_agrees_with_autoattack(threat, network, seed, rank, widen):
    toy, threat = trained_toy(kind=network, seed=seed), ThreatModel(threat.norm, widen * threat.eps)
    start = threat.random_start(toy.images, generators(len(toy.images), seed))
    targets = runner_up(toy.model(toy.images), toy.labels, rank)
    attack = APGDAttack_targeted(toy.model, n_iter=50, norm=OFFICIAL_NORM[threat.norm], eps=threat.eps, device="cpu")
    attack.init_hyperparam(toy.images)
    attack.y_target = targets
    _, robust, best_loss, _ = attack.attack_single_run(toy.images, toy.labels, x_init=start)
    objective = TargetedClassification(toy.model, toy.labels, targets)
    assert_agreement(objective, toy, threat, start, 50, (best_loss, robust))


@every_threat
@pytest.mark.parametrize(("classes", "loss"), [(2, "ce"), (3, "ce"), (3, "dlr")])
def test_few_classes_agree_with_autoattack(threat, classes, loss):
    toy = trained_toy(classes)
    wider = ThreatModel(threat.norm, 1.5 * threat.eps)
    start = wider.random_start(toy.images, generators(len(toy.images)))
    expected = official(toy, wider, start, loss, 40)
    assert_agreement(Classification(toy.model, toy.labels, loss), toy, wider, start, 40, expected)


def test_targeted_attack_on_three_classes_is_refused():
    toy = trained_toy(3)
    objective = TargetedClassification(toy.model, toy.labels, (toy.labels + 1) % 3)
    with pytest.raises(ValueError, match="at least 4 classes"):
        apgd(objective, toy.images, THREATS["linf"], steps=2)


def test_the_plain_loop_that_the_benchmark_measures_against_is_the_same_attack():
    toy, threat = trained_toy(), THREATS["linf"]
    for row in range(4):
        images, labels = toy.images[row : row + 1], toy.labels[row : row + 1]
        goal = Classification(toy.model, labels)
        ours = apgd(goal, images, threat, steps=40, first_step=1.0, stop_when_fooled=False)
        assert torch.equal(plain_apgd(goal, images, images, threat.eps, 40), ours.images)


def test_siblings_leave_together():
    """Two goals for each of three images; the second goal of image 1 is reached on the way, so both of its rows end."""
    toy, threat = trained_toy(), THREATS["linf"]
    clean = toy.images[:3].repeat(2, 1, 1, 1)
    looks = []

    def goal(images, rows):
        looks.append(rows.tolist())
        progress = LinearObjective(torch.ones(3, 8, 8))(images, rows)
        return Progress(progress.loss, (rows == 4) & (len(looks) == 3))

    outcome = apgd(goal, clean, threat, steps=5, siblings=torch.tensor([0, 1, 2, 0, 1, 2]))
    assert looks[2] == [0, 1, 2, 3, 4, 5]
    assert looks[3] == [0, 2, 3, 5]
    assert outcome.fooled.tolist() == [False] * 4 + [True, False]
    assert outcome.evaluations.tolist() == [5, 3, 5, 5, 2, 5]
    looks.clear()
    apgd(goal, clean, threat, steps=5)
    assert looks[3] == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("options", [{"first_step": -1.0}, {"first_step": float("nan")}, {"first_checkpoint": "zero"}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        apgd(script([0.0] * 3), toy_images(1), THREATS["linf"], steps=2, **options)


def test_steps_of_no_length_go_nowhere():
    clean = toy_images(1)
    outcome = apgd(script([0.0] * 3), clean, THREATS["linf"], steps=2, first_step=0.0)
    assert torch.equal(outcome.images, clean)


def test_at_each_checkpoint_the_best_images_are_confirmed_and_those_that_fool_leave():
    clean = toy_images(3)
    asked = []

    def confirm(images, rows):
        asked.append((images.clone(), rows.tolist()))
        return (rows == 1) & torch.tensor(len(asked) == 2)

    threat, objective = THREATS["linf"], LinearObjective(toy_images(1, seed=1)[0] - 0.5)
    plain = apgd(objective, clean, threat, steps=50)
    found = apgd(objective, clean, threat, steps=50, confirm=confirm)
    assert [rows for _, rows in asked] == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2], [0, 2]]
    assert found.fooled.tolist() == [False, True, False]
    assert found.evaluations.tolist() == [50, checkpoints(50)[1] + 1, 50]
    assert torch.equal(found.images[1], asked[1][0][1])
    for row in (0, 2):
        assert torch.equal(found.images[row], plain.images[row])
    through = apgd(objective, clean, threat, steps=50, confirm=confirm, stop_when_fooled=False)
    assert torch.equal(through.images, plain.images)
    assert len(asked) == 5
