"""The loop: certification, batch invariance, resume after a kill, errors, and the worst-case bookkeeping."""

import json
import signal
import time
from dataclasses import replace

import msgspec
import pytest
import torch

from attacks.kinds import run_apgd
from attacks.objective import Classification, Progress
from attacks.presets import PRESETS, AttackStep, Preset
from bench import registry
from bench.cli import main
from bench.config import Request, RunConfig, load_suite, resolve
from bench.errors import UsageError
from bench.records import RecordsError, load_run, read_records
from bench.records.worst import worst_scores
from bench.running import load as setup
from bench.running import loop
from tests.bench.runs import make_record
from tests.bench.toy_runs import put_kind
from tests.commands import bench, start


def _config(tmp_path, **changes) -> RunConfig:
    options = {"encoder": "fare", "task": "zeroshot", "limit": 12, "output": tmp_path} | changes
    dataset = options.pop("dataset", "mini-shape")
    return next(c for c in resolve(Request.of(**options)) if c.dataset == dataset)


def _run(config):
    return load_run(loop.execute(config))


SOUND = """
    no_errors classes_told_apart gradient repeatable logits beats_noise attack_moves_images robust_not_above_clean
    loss_grows_with_eps finite_differences
""".split()


def _checks(run):
    return {check["name"]: check["ok"] for check in run.header.checks}


def _bare(records):
    return sorted((r.sample_id, r.step, r.radius, r.prediction, r.score, r.error or "") for r in records)


def test_a_run_is_whole_certified_and_monotone_in_eps(tmp_path):
    run = _run(_config(tmp_path))
    assert run.header.status == "complete"
    assert run.header.weights.keys() == {"encoder", "text"}
    assert {check["name"]: check["ok"] for check in run.header.checks} == dict.fromkeys(SOUND, True)
    assert all(r.distance <= r.radius + 1e-4 for r in run.records)
    clean, two, four = (worst_scores(run.header, run.records, eps) for eps in (0, 2, 4))
    assert len(clean) == len(two) == len(four) == 12
    assert all(four[s] <= two[s] <= clean[s] for s in clean)
    assert sum(clean.values()) > sum(four.values())


def test_a_sample_broken_at_a_small_radius_is_not_attacked_at_a_larger_one(tmp_path):
    run = _run(_config(tmp_path, encoder="clip", radii_order="ascending"))
    broken = {s for s, score in worst_scores(run.header, run.records, 2).items() if score == 0}
    assert broken
    assert not [r for r in run.records if r.radius == 4 and r.sample_id in broken]


def test_a_sample_that_the_largest_radius_leaves_as_it_was_is_not_attacked_at_a_smaller_one(tmp_path):
    """So it is for the first samples whatever order they choose."""
    run = _run(_config(tmp_path))
    scores = {r.sample_id: r.score for r in run.records if r.step == "clean"}
    lowered = {r.sample_id for r in run.records if r.radius == 4 and r.score != scores[r.sample_id]}
    large, small = ({r.sample_id for r in run.records if r.radius == radius} for radius in (4, 2))
    assert small == lowered < large
    assert run.header.radii_order == "adaptive"
    assert run.header.chosen_order in ("ascending", "descending")


@pytest.mark.parametrize(("task", "dataset"), [("zeroshot", "mini-shape"), ("vqa", "mini-vqa")])
def test_batch_size_does_not_change_an_answer(tmp_path, task, dataset):
    options = {"task": task, "dataset": dataset, "limit": 5, "eps": 4, "attack": "pgd"}
    whole = _run(_config(tmp_path / "whole", **options))
    single = _run(_config(tmp_path / "single", **options, batch_size=1))
    assert _bare(whole.records) == _bare(single.records)


def test_the_same_command_again_does_nothing(tmp_path):
    first = _run(_config(tmp_path, attack="pgd"))
    before = (first.directory / "records.jsonl").read_bytes()
    _run(_config(tmp_path, attack="pgd"))
    assert (first.directory / "records.jsonl").read_bytes() == before


def test_resuming_other_weights_is_refused_by_name(tmp_path, monkeypatch):
    _run(_config(tmp_path, attack="none"))
    monkeypatch.setattr(setup, "digest", lambda module: "of other weights")
    with pytest.raises(RecordsError, match="weights"):
        _run(_config(tmp_path, attack="none"))


def give_brief(*words):
    """A command with a preset whose "best" start needs the images saved before a kill."""
    PRESETS["brief"] = Preset(
        "",
        (
            AttackStep("first", "apgd", 6, "reference-0", "random", 2.0),
            AttackStep("again", "apgd", 6, "best", "best", 1.0),
        ),
    )
    main(words)


BRIEF = "run --encoder fare --task vqa --limit 24 --quiet --batch-size 2 --attack brief --jobs 1 --output".split()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing interrupts."""
    whole = tmp_path_factory.mktemp("whole")
    command = start(give_brief, *BRIEF, str(whole))
    assert command.wait() == 0, command.stderr
    return load_run(next(whole.rglob("run.json")).parent)


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_killed_at_any_moment_and_resumed_equals_uninterrupted(tmp_path, straight, delay):
    """A real process is killed."""
    child = start(give_brief, *BRIEF, str(tmp_path))
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("records.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    (directory,) = (path.parent for path in tmp_path.rglob("run.json"))
    assert load_run(directory).header.status == "started"
    assert start(give_brief, *BRIEF, str(tmp_path)).wait() == 0
    resumed = load_run(directory)
    assert resumed.header.status == "complete"
    assert _bare(straight.records) == _bare(resumed.records)


# ---- Faults, injected through a victim -------------------------------------------------------------------


class _Wrapped:
    """A victim whose objective misbehaves for one sample."""

    def __init__(self, victim, spoil):
        self.victim, self.spoil = victim, spoil
        self.predict = victim.predict

    def objective(self, images, samples, goal):
        inner = self.victim.objective(images, samples, goal)
        ids = [s.id for s in samples]

        def objective(candidates, rows):
            return self.spoil(inner(candidates, rows), [ids[r] for r in rows.tolist()])

        return objective


def _with_victim(monkeypatch, wrap):
    original = loop.prepare

    def prepare(config):
        setup = original(config)
        wrapped = wrap(setup.victim)
        return replace(setup, victim=wrapped, surrogate=wrapped)

    monkeypatch.setattr(loop, "prepare", prepare)


def test_a_nan_is_an_error_row_of_that_sample_only(tmp_path, monkeypatch):
    def spoil(progress, ids):
        bad = torch.tensor([i == "s0000003" for i in ids])
        return Progress(torch.where(bad, torch.nan, progress.loss), progress.fooled & ~bad)

    _with_victim(monkeypatch, lambda victim: _Wrapped(victim, spoil))
    run = _run(_config(tmp_path, encoder="fare", eps=2))
    failed = {r.sample_id for r in run.records if r.error}
    assert failed == {"s0000003"}
    assert run.header.status == "failed"
    assert "s0000003" not in worst_scores(run.header, run.records, 2)
    assert len(worst_scores(run.header, run.records, 2)) == 11


def _leave_the_ball(outcome, images):
    return outcome._replace(images=(images + 0.1).clamp(0, 1))


def _reorder_rows(outcome, images):
    return outcome._replace(images=outcome.images.roll(1, 0))


def _return_nan(outcome, images):
    return outcome._replace(images=torch.full_like(images, torch.nan))


def _return_float64(outcome, images):
    return outcome._replace(images=outcome.images.double())


def _return_half(outcome, images):
    return outcome._replace(images=outcome.images.half().float())  # rounding moves pixels out of the ball


def _return_fewer(outcome, images):
    return outcome._replace(images=outcome.images[1:])


def _return_fewer_losses(outcome, images):
    return outcome._replace(loss=outcome.loss[1:])


def _return_a_tensor(outcome, images):
    return outcome.images


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (_leave_the_ball, "left the ball"),
        (_reorder_rows, "lies in the ball of another sample: were rows reordered"),
        (_return_nan, "pixels that are not finite"),
        (_return_float64, "torch.float64, not"),
        (_return_half, "left the ball"),
        (_return_fewer, "images (2, 3, 48, 48) torch.float32, not (3"),
        (_return_fewer_losses, "loss of shape"),
        (_return_a_tensor, "returned a Tensor"),
    ],
)
def test_a_cheating_attack_is_caught_and_named(tmp_path, monkeypatch, cheat, words):
    brief = replace(PRESETS["apgd"].steps[0], steps=3)
    monkeypatch.setitem(PRESETS, "apgd", Preset("", (brief,)))
    put_kind(monkeypatch, "apgd", lambda goal, images, *rest: cheat(run_apgd(goal, images, *rest), images))
    run = _run(_config(tmp_path, limit=4, eps=2))
    attacked = [r for r in run.records if r.step != "clean"]
    assert len(attacked) > 1
    for record in attacked:
        assert words in record.error
        assert "attack step 'apgd' (apgd)" in record.error
        assert record.score is None
    assert run.header.status == "failed"


def test_an_attack_that_does_nothing_fails_its_checks(tmp_path, monkeypatch):
    put_kind(monkeypatch, "apgd", lambda goal, images, *rest: run_apgd(goal, images, *rest)._replace(images=images))
    run = _run(_config(tmp_path, limit=4, eps=2))
    assert not _checks(run)["attack_moves_images"]


def test_an_attack_of_a_plugin_is_found_by_its_kind(tmp_path, monkeypatch):
    """Any function of the right signature; here one that shows what it was given."""
    seen = []

    def tiny(objective, images, threat, context):
        seen.append(context)
        return run_apgd(objective, images, threat, context)

    monkeypatch.setattr(registry, "plugins", lambda group: {"tiny": None} if group == "bench.attack_kinds" else {})
    monkeypatch.setattr(registry, "resolve", lambda group, name, found=registry.resolve: (
        tiny if name == "tiny" else found(group, name)
    ))  # fmt: skip
    steps = (AttackStep("mine", "tiny", 2, "untargeted", "random", 1.0),)
    monkeypatch.setitem(PRESETS, "apgd", Preset("", steps))
    run = _run(_config(tmp_path, limit=4, eps=2))
    assert {r.step for r in run.records} == {"clean", "mine"}
    assert seen[0].step.name == "mine"
    monkeypatch.undo()
    monkeypatch.setitem(PRESETS, "apgd", Preset("", (replace(steps[0], kind="tinny"),)))
    with pytest.raises(UsageError, match="unknown kind of attack 'tinny'"):
        _run(_config(tmp_path / "other", limit=4, eps=2))


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path, monkeypatch):
    sizes = []

    class Greedy(Classification):
        def __call__(self, images, rows):
            if len(images) > 5:
                raise torch.OutOfMemoryError("simulated")
            sizes.append(len(images))
            return super().__call__(images, rows)

    monkeypatch.setattr("tasks.zeroshot.Classification", Greedy)
    starved = _run(_config(tmp_path / "a", eps=4, attack="pgd"))
    monkeypatch.undo()
    plenty = _run(_config(tmp_path / "b", eps=4, attack="pgd"))
    assert max(sizes) <= 5
    assert _bare(starved.records) == _bare(plenty.records)


def test_the_best_start_goes_on_from_the_worst_image(tmp_path, monkeypatch):
    """A second, zero-step round from the best image reproduces the first round's answer."""
    steps = (
        AttackStep("first", "apgd", 15, "reference-0", "clean", 2.0),
        AttackStep("again", "apgd", 0, "best", "best", 1.0),
    )
    monkeypatch.setattr("bench.config.suite.PRESETS", {"two": Preset("", steps)})
    run = _run(_config(tmp_path, task="captioning", dataset="mini-caption", attack="two", eps=4, limit=6))
    first = {r.sample_id: r for r in run.records if r.step == "first"}
    clean = {r.sample_id: r for r in run.records if r.step == "clean"}
    again = [r for r in run.records if r.step == "again"]
    assert again
    for record in again:
        worse = first[record.sample_id].score < clean[record.sample_id].score
        expected = first[record.sample_id] if worse else clean[record.sample_id]
        assert record.prediction == expected.prediction


@pytest.mark.parametrize(
    ("scores", "eps", "goal"),
    [
        ([50.0, 60.0, 55.0, 70.0], 4.0, "reference-0"),  # no round did harm: the first goal, from the clean image
        ([50.0, 50.0, 50.0, 50.0], 4.0, "reference-0"),  # a tie is no harm
        ([50.0, 40.0, 30.0, 30.0], 4.0, "reference-1"),  # of equals the earlier
        ([50.0, 40.0, 30.0, 20.0], 4.0, "reference-2"),
        ([50.0, 40.0, 30.0, 20.0], 2.0, "reference-0"),  # rounds of a larger radius do not count
    ],
)
def test_the_last_round_goes_on_with_the_goal_that_did_the_most_harm(scores, eps, goal):
    steps = PRESETS["ensemble"].steps
    records = [make_record("s0", score=scores[0])]
    records += [make_record("s0", f"reference-{n}", 4.0, score) for n, score in enumerate(scores[1:])]
    assert loop.best_goal(steps, records, eps, "min") == goal
    raised = [msgspec.structs.replace(record, score=100 - record.score) for record in records]
    assert loop.best_goal(steps, raised, eps, "max") == goal


def test_the_last_round_itself_and_rounds_that_failed_name_no_goal():
    records = [
        make_record("s0", score=50.0),
        make_record("s0", "reference-3", 4.0, None, error="no memory"),
        make_record("s0", "reference-4", 4.0, 40.0),
        make_record("s0", "again", 4.0, 30.0),
    ]
    assert loop.best_goal(PRESETS["ensemble"].steps, records, 4.0, "min") == "reference-4"


def test_transfer_attacks_follow_the_surrogate(tmp_path):
    direct = _run(_config(tmp_path, encoder="fare4", task="vqa", dataset="mini-vqa", limit=8, eps=4, attack="pgd"))
    config = _config(
        tmp_path, encoder="fare4", task="vqa", dataset="mini-vqa", limit=8, eps=4, attack="pgd", surrogate="clip"
    )
    transfer = _run(config)
    assert transfer.header.surrogate == "clip"
    assert transfer.header.weights["surrogate"] != transfer.header.weights["encoder"]
    hurt = [sum(worst_scores(r.header, r.records, 4).values()) for r in (direct, transfer)]
    assert hurt[1] > hurt[0]


def test_a_run_prints_its_json_and_nothing_else(tmp_path):
    command = "run --encoder clip --task zeroshot --limit 3 --attack none --json --jobs 1 --output".split()
    done = bench(*command, str(tmp_path))
    assert done.poll() == 0, done.stderr
    rows = json.loads(done.stdout)
    named = {"suite", "encoder", "task", "dataset", "metric", "attack"}
    measured = {"radius", "value", "low", "high", "n", "partial", "checks", "run_dir"}
    assert [row.keys() for row in rows] == [named | measured] * 5
    assert [row["dataset"] for row in rows] == list(load_suite("mini").tasks["zeroshot"].datasets)
    assert read_records(rows[0]["run_dir"])


def test_captions_are_asked_for_at_checkpoints_so_that_a_broken_one_ends_its_attack(monkeypatch, tmp_path):
    """Only by the default protocol: the paper's looks at a caption after all steps."""
    step = AttackStep("reference-0", "apgd", 30, "reference-0", "clean", 1.0)
    for kind in ("apgd", "apgd-confirm"):
        monkeypatch.setitem(PRESETS, kind, Preset("", (replace(step, kind=kind),)))

    def attacked(kind, **options):
        config = _config(tmp_path, task="captioning", dataset="mini-caption", encoder="clip", attack=kind, eps=4,
                         limit=5, **options)  # fmt: skip
        return {r.sample_id: r for r in _run(config).records if r.step != "clean"}

    plain, asked = attacked("apgd"), attacked("apgd-confirm")
    early = {key for key, record in asked.items() if record.evaluations < 30}
    assert early
    assert all(asked[key].score < 10 for key in early)
    assert all(asked[key].score == plain[key].score for key in asked.keys() - early)
    assert {r.evaluations for r in plain.values()} == {30}
    assert {r.evaluations for r in attacked("apgd-confirm", protocol="paper").values()} == {30}
