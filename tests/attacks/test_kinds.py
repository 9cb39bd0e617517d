"""Attack kinds: one row per kind in the table below, the laws they all obey, and the options of a step."""

import hashlib
from dataclasses import replace

import pytest
import torch

from attacks.kinds import APGD, PGD, SQUARE, AttackKind, StepContext, kind_of, run_brought
from attacks.objective import Classification, Progress, TargetedClassification, evaluate, evaluate_with_gradient
from attacks.outcome import Outcome
from attacks.presets import AttackStep
from attacks.restarts import restarted
from attacks.threat import ThreatModel
from bench import registry
from tests.toys import LinearObjective, toy_images, trained_toy

TABLE = {  # kind -> a step that takes a moment
    "apgd": AttackStep("a", "apgd", 6, "untargeted", "random", 2.0),
    "apgd-confirm": AttackStep("c", "apgd-confirm", 6, "untargeted", "random", 2.0),
    "pgd": AttackStep("p", "pgd", 6, "untargeted", "random", 0.3),
    "fab-t": AttackStep("f", "fab-t", 4, "untargeted", "clean", 0.0),
    "noise": AttackStep("n", "noise", 1, "untargeted", "random", 0.0),
    "square": AttackStep("s", "square", 150, "untargeted", "clean", 0.0),
    "squares": AttackStep("q", "squares", 150, "untargeted", "clean", 0.0),
    "common-weakness": AttackStep("w", "common-weakness", 4, "untargeted", "random", 0.3, options={"spectrum": 2}),
    "queries": AttackStep("r", "queries", 3, "untargeted", "clean", 0.4, options={"queries": 20}),
}
TOWARDS = {"crops", "foa"}  # kinds that need a target image: tests/attacks/test_crops.py
LOGITS = {"fab-t", "square"}  # kinds that need a classifier
COUNT = 10
THREATS = {"linf": ThreatModel("linf", 24 / 255), "l2": ThreatModel("l2", 1.0)}
WIDER = {"linf": ThreatModel("linf", 60 / 255), "l2": ThreatModel("l2", 2.5)}  # where few queries find something

every_kind = pytest.mark.parametrize("name", TABLE)


def built_in(name) -> AttackKind:
    return registry.resolve("bench.attack_kinds", name)


def run(name, rows, threat, **changes) -> Outcome:
    toy, step = trained_toy(), replace(TABLE[name], **changes)
    images, objective = toy.images[rows], Classification(toy.model, toy.labels[rows])
    start = threat.random_start(images, [torch.Generator().manual_seed(int(row)) for row in rows])
    context = StepContext(step, start if step.start == "random" else images, [int(row) + 7 for row in rows])
    kind = built_in(name)
    kind.check(step)
    return kind.run(kind.adapt(objective, step.options), images, threat, context)


def test_each_kind_of_the_registry_has_a_row():
    assert TABLE.keys() | TOWARDS | {"brought"} == registry.ATTACK_KINDS.keys()  # the last makes nothing


def test_what_is_brought_is_not_made():
    with pytest.raises(ValueError, match="bench score"):
        run_brought(None, None, None, None)


@every_kind
@pytest.mark.parametrize("norm", THREATS)
def test_a_kind_stays_in_the_ball_says_the_truth_and_does_not_depend_on_its_batch(name, norm):
    rows, threat = torch.arange(COUNT), (THREATS if built_in(name).white_box else WIDER)[norm]
    toy, together = trained_toy(), run(name, rows, threat)
    assert threat.contains(together.images, toy.images[:COUNT]).all()
    assert not together.failed.any()
    assert (together.images != toy.images[:COUNT]).any()
    ascended = built_in(name).adapt(Classification(toy.model, toy.labels[:COUNT]), {})
    said = evaluate(ascended, together.images, rows)
    assert torch.equal(said.fooled, together.fooled)
    torch.testing.assert_close(said.loss, together.loss)
    apart = [run(name, part, threat) for part in rows.split(3)]
    assert torch.equal(torch.cat([one.images for one in apart]), together.images)
    assert torch.equal(torch.cat([one.evaluations for one in apart]), together.evaluations)
    assert torch.equal(run(name, rows, threat).images, together.images)


@every_kind
def test_a_kind_says_whether_it_follows_gradients(name):
    """One that does not works where there are none; one that does asks for them."""
    toy, leaves = trained_toy(), []

    def model(images):
        leaves.append(images.requires_grad)
        return toy.model(images)

    context = StepContext(TABLE[name], toy.images[:4], [0, 1, 2, 3])
    built_in(name).run(Classification(model, toy.labels[:4]), toy.images[:4], THREATS["linf"], context)
    assert any(leaves) == built_in(name).white_box


@every_kind
def test_a_kind_with_a_loss_curve_asks_its_objective_once_per_step(name):
    """Of all samples that are left, and nothing else."""
    kind, step, calls = built_in(name), TABLE[name], []

    def objective(images, rows):
        calls.append(len(rows))
        return Progress((images * images).sum((1, 2, 3)), torch.zeros_like(rows, dtype=torch.bool))

    if kind.floor:
        kind.run(objective, toy_images(3), THREATS["linf"], StepContext(step, toy_images(3), [0, 1, 2]))
        assert calls == [3]
        return
    if not kind.loss_curve and name not in LOGITS:
        kind.run(objective, toy_images(3), THREATS["linf"], StepContext(step, toy_images(3), [0, 1, 2]))
        assert len(calls) > step.steps + 1
        return
    if name in LOGITS:
        with pytest.raises(ValueError, match="logits of a classifier"):
            kind.run(objective, toy_images(3), THREATS["linf"], StepContext(step, toy_images(3), [0, 1, 2]))
        return
    kind.run(objective, toy_images(3), THREATS["linf"], StepContext(step, toy_images(3), [0, 1, 2]))
    assert calls == [3] * (step.steps + 1)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("apgd", {"momentum": 0.9}, "kind 'apgd' has no option 'momentum'; its options are loss, restarts"),
        ("square", {"loss": "ce"}, "kind 'square' has no option 'loss'; it has no options"),
        ("apgd", {"loss": "hinge"}, "option loss of kind 'apgd' must be 'ce' or 'dlr' or 'margin', not 'hinge'"),
        ("apgd", {"loss": ["ce"]}, "option loss of kind 'apgd' must be"),
        ("apgd", {"restarts": 0}, "option restarts of kind 'apgd' must be a whole number above 0, not 0"),
        ("apgd", {"restarts": True}, "must be a whole number above 0, not True"),
        ("pgd", {"restarts": 1.5}, "must be a whole number above 0, not 1.5"),
        ("pgd", {"momentum": 1.0}, "option momentum of kind 'pgd' must be a number from 0 to below 1, not 1.0"),
        ("pgd", {"schedule": "sine"}, "option schedule of kind 'pgd' must be 'constant' or 'cosine', not 'sine'"),
        ("pgd", {"schedule": []}, "must be 'constant' or 'cosine'"),
        ("pgd", {"momentum": "0.5"}, "must be a number from 0 to below 1"),
        ("pgd", {"momentum": float("nan")}, "must be a number from 0 to below 1"),
    ],
)
def test_options_that_a_kind_does_not_understand_are_refused_by_name(name, options, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        built_in(name).check(replace(TABLE[name], options=options))


def test_the_option_loss_is_what_is_ascended():
    toy = trained_toy()
    plain = Classification(toy.model, toy.labels)
    assert APGD.adapt(plain, {}) is plain
    assert APGD.adapt(plain, {"loss": "dlr"}).loss == "dlr"
    rows = torch.arange(COUNT)
    found = run("pgd", rows, THREATS["linf"], options={"loss": "dlr"}, steps=3)
    dlr = Classification(toy.model, toy.labels[:COUNT], "dlr")
    torch.testing.assert_close(evaluate(dlr, found.images, rows).loss, found.loss)
    towards = TargetedClassification(toy.model, toy.labels, (toy.labels + 1) % 10)
    assert APGD.adapt(towards, {"loss": "margin"}).loss == "margin"
    with pytest.raises(ValueError, match="loss must be one of"):
        APGD.adapt(towards, {"loss": "ce"})
    with pytest.raises(ValueError, match="losses of a classifier"):
        APGD.adapt(LinearObjective(torch.ones(3, 8, 8)), {"loss": "ce"})


def test_the_option_momentum_reaches_pgd():
    """In closed form: with momentum 0 the second step follows the second gradient alone."""
    toy, rows = trained_toy(), torch.arange(4)
    images, labels = toy.images[:4], toy.labels[:4]
    threat, size = ThreatModel("linf", 0.2), 0.02
    step = AttackStep("p", "pgd", 2, "untargeted", "clean", 0.1, options={"momentum": 0.0})
    context = StepContext(step, images, [0] * 4, stop_when_fooled=False)
    found = PGD.run(Classification(toy.model, labels), images, threat, context).images
    wanted = images
    for _ in range(2):
        _, gradient = evaluate_with_gradient(Classification(toy.model, labels), wanted, rows, skip_fooled=False)
        wanted = (wanted + size * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(found, wanted)


def started(starts):
    """An attack that returns its start, and remembers whose it was."""

    def attack(objective, images, init, rows):
        starts.append((rows.tolist(), init.clone()))
        loss, fooled = objective(init, torch.arange(len(rows)))
        return Outcome(init, loss, fooled, ~loss.isfinite(), torch.full_like(rows, 3))

    return attack


def later_starts(images, threat, seeds, number):
    """The random images of the ball from which a sample is attacked again, as they have been from the first."""
    digests = [hashlib.sha256(f"({seed}, {number})".encode()).hexdigest() for seed in seeds]
    return threat.random_start(images, [torch.Generator().manual_seed(int(d[:16], 16) // 2) for d in digests])


@pytest.mark.parametrize("stop", [True, False])
def test_restarts_keep_the_first_that_fools_else_the_highest_loss_and_count_all(stop):
    """Whether an image fools has nothing to do with its loss."""
    images, threat, starts = toy_images(16), ThreatModel("linf", 0.1), []
    weights = torch.randn(2, *images.shape, generator=torch.Generator().manual_seed(0))

    def objective(shown, rows):
        loss, sign = ((shown - images[rows]) * weights[:, rows]).sum((2, 3, 4))
        return Progress(loss, sign > 0.04 * weights[1, rows].square().sum((1, 2, 3)).sqrt())

    seeds, rows = range(5, 21), torch.arange(16)
    init = threat.random_start(images, [torch.Generator().manual_seed(seed) for seed in seeds])
    began = [init, *(later_starts(images, threat, seeds, number) for number in (1, 2, 3))]
    loss, fooled = map(torch.stack, zip(*(objective(start, rows) for start in began), strict=True))
    ends = [int(f.long().argmax()) if stop and f.any() else 3 for f in fooled.T]
    kept = [end if stop and fooled[end, row] else int(loss[:, row].argmax()) for row, end in enumerate(ends)]
    assert (len(set(kept)), len(set(ends))) == (4, 4 if stop else 1), "the case is as varied as it should be"
    assert any(loss[kept[row], row] < loss[: ends[row], row].amax() for row in range(16) if ends[row]) is stop

    best = restarted(started(starts), objective, images, threat, init, seeds, times=4, stop_when_fooled=stop)
    assert [tried for tried, _ in starts] == [[r for r in range(16) if ends[r] >= number] for number in range(4)]
    assert torch.equal(best.images, torch.stack([began[kept[row]][row] for row in range(16)]))
    assert best.loss.tolist() == [loss[kept[row], row].item() for row in range(16)]
    assert best.fooled.tolist() == [fooled[kept[row], row].item() for row in range(16)]
    assert best.evaluations.tolist() == [3 * (end + 1) for end in ends]


def test_restarts_do_not_depend_on_the_batch_and_a_failure_stays_one():
    images, threat = toy_images(4), ThreatModel("linf", 0.1)

    def objective(shown, rows):
        loss = shown.square().sum((1, 2, 3))
        return Progress(torch.where(shown[:, 0, 0, 0] == images[2, 0, 0, 0], torch.nan, loss), loss > 1e9)

    def go(rows):
        part = images[rows]
        seeds = [int(row) for row in rows]
        return restarted(started([]), objective, part, threat, part, seeds, times=3, stop_when_fooled=True)

    together = go(torch.arange(4))
    assert together.failed.tolist() == [False, False, True, False]
    apart = [go(torch.tensor([row])) for row in range(4)]
    assert torch.equal(torch.cat([one.images for one in apart]), together.images)


def test_the_option_restarts_finds_no_less():
    rows = torch.arange(48)
    once, thrice = (run("pgd", rows, THREATS["linf"], steps=2, options={"restarts": n}) for n in (1, 3))
    assert torch.equal(once.images, run("pgd", rows, THREATS["linf"], steps=2).images)
    assert thrice.fooled.sum() > once.fooled.sum()
    left = ~once.fooled & ~thrice.fooled
    assert (thrice.loss[left] >= once.loss[left]).all()
    assert (thrice.evaluations >= once.evaluations).all()


def test_a_plain_function_is_a_kind_that_follows_gradients():
    def mine(objective, images, threat, context):
        """Attack in my way.

        And more.
        """

    kind = kind_of(mine)
    assert (kind.run, kind.about, kind.white_box, kind.loss_curve) == (mine, "Attack in my way.", True, False)
    kind.check(replace(TABLE["pgd"], options={"anything": 1}))
    assert kind_of(SQUARE) is SQUARE
    for wrong in ("pgd", 3, None, AttackKind):
        with pytest.raises(TypeError, match="an attack kind is"):
            kind_of(wrong)


def test_options_are_recorded_only_where_there_are_any():
    step = TABLE["pgd"]
    assert "options" not in step.as_data()
    assert replace(step, options={"restarts": 2}).as_data()["options"] == {"restarts": 2}
    assert hash(step) == hash(replace(step, options={"restarts": 2}))
    assert step != replace(step, options={"restarts": 2})


def test_all_constants_are_attack_kinds_with_one_line_about_them():
    for name in registry.ATTACK_KINDS:
        kind = built_in(name)
        assert isinstance(kind, AttackKind)
        assert kind.about
        assert "\n" not in kind.about
