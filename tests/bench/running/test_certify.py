"""What the runner adds to an attack: volleys, half-precision searches, PNG scores, batch sizes, attacks without a task.

Everything runs on a toy classifier, in milliseconds.
"""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import msgspec
import pytest
import torch
from PIL import Image
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from safetensors.torch import load_file
from torchvision.transforms.functional import to_tensor

from attacks.kinds import KINDS
from attacks.objective import Classification, Progress, runner_up
from attacks.presets import EMBEDDING, PRESETS, AttackStep
from attacks.threat import ThreatModel
from bench.batch_size import TOO_LARGE, BatchSize, within_memory
from bench.errors import UsageError
from bench.records import Record
from bench.records.worst import worst_scores
from bench.running.attack_batch import UNITS, threat_model
from bench.running.certify import Conditions, Job, objective, start_of
from bench.running.images import ImageStore
from bench.running.load import HalfPrecision
from tasks.zeroshot import ZeroShot
from tests.bench.toy_runs import COUNT, NAMES, RADIUS, Linear, ToyEncoder, bare, make_setup, robust, short, victim
from tests.toys import trained_toy

# ---- Volleys ---------------------------------------------------------------------------------------------


def test_a_volley_breaks_what_its_steps_break_one_by_one(attack):
    targets = short("autoattack")[1:-1]
    together = attack([replace(step, volley="all") for step in targets])
    apart = attack([replace(step, volley="") for step in targets])
    assert robust(together) == robust(apart)
    assert 0 < len(robust(together)) < COUNT


def test_a_lost_sample_keeps_the_step_that_broke_it_and_the_cost_of_all(attack):
    steps = [replace(step, start="clean", volley="all") for step in short("autoattack")[1:-1]]
    found = attack(steps)
    by_sample = {}
    for record in found.records:
        if record.step != "clean":
            by_sample.setdefault(record.sample_id, []).append(record)
    lost = [records for records in by_sample.values() if records[-1].score == 0]
    stood = [records for records in by_sample.values() if records[-1].score == 100]
    assert lost
    assert stood
    assert all(len(records) == 1 for records in lost)
    assert all(len(records) == 9 and {r.evaluations for r in records} == {12} for records in stood)
    assert any(records[0].evaluations > 12 for records in lost), "siblings cost, too"


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("preset", ["autoattack", "autoattack-paper", "pgd", "embedding"])
def test_batches_of_any_size_record_the_same(attack, preset, norm):
    eps = RADIUS if norm == "linf" else 0.7
    options = {"norm": norm, "eps": (eps,), "setup": make_setup("toy", eps=(eps,)), "save_adversarial": True}
    whole, seven, single = (attack(short(preset, 6), batch_size=size, **options) for size in (32, 7, 1))
    assert bare(whole.records) == bare(seven.records) == bare(single.records)
    for other in (seven, single):
        assert losses(other) == pytest.approx(losses(whole), rel=0, abs=1e-5)
        assert [name for name, _ in images(other)] == [name for name, _ in images(whole)]
        for (_, image), (_, wanted) in zip(images(other), images(whole), strict=True):
            torch.testing.assert_close(image, wanted, rtol=0, atol=1e-9)


def losses(found):
    return [r.loss for r in sorted(found.records, key=lambda r: r.key) if r.step != "clean"]


def images(found):
    """Names and pixels of a run's saved images."""
    paths = sorted((found.directory / "adversarial").rglob("*.safetensors"))
    return [(path.name, load_file(path)["image"]) for path in paths]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_empty_ball_gives_the_clean_result_bit_for_bit(attack, norm):
    """Of every kind of attack; the judge answers what it answers to the clean image."""
    steps = [*short("autoattack", 4), *short("autoattack-full", 4)[-2:], *short("pgd", 4), *short("embedding", 4)]
    found = attack(steps, norm=norm, eps=(0.0,), setup=make_setup("toy", eps=(0.0,)))
    clean = {r.sample_id: r.prediction for r in found.records if r.step == "clean"}
    attacked = [r for r in found.records if r.step != "clean"]
    assert {r.step for r in attacked} == {step.name for step in steps}
    assert all(r.distance == 0 and r.prediction == clean[r.sample_id] and r.error is None for r in attacked)


def test_a_volley_of_attacks_that_share_no_forward_pass_is_refused(attack):
    steps = [AttackStep(f"ce-{n}", "apgd", 2, "untargeted", "random", 2.0, volley="ce") for n in range(2)]
    with pytest.raises(UsageError, match=r"volley 'ce'.*side by side"):
        attack(steps)


def of_autoattack(samples, images, labels, threat, seed):
    """The samples that pyautoattack's APGD-CE and APGD-T leave standing, from the starts that the runner draws."""
    model, standing = trained_toy().model, list(range(len(samples)))
    for step in short("autoattack", 30):
        if not standing:
            break
        left, true = images[standing], labels[standing]
        job = Job((step,), [samples[k] for k in standing], left, threat.eps * UNITS[threat.norm], threat)
        start = start_of(job, Conditions(seed, "reference", True, None))
        options = {"n_iter": 30, "norm": {"linf": "Linf", "l2": "L2"}[threat.norm], "eps": threat.eps, "device": "cpu"}
        if step.goal == "untargeted":
            theirs = APGDAttack(model, loss="ce", **options)
        else:
            theirs = APGDAttack_targeted(model, **options)
            theirs.y_target = runner_up(model(left), true, int(step.goal.removeprefix("targeted-")))
        theirs.init_hyperparam(left)
        robust_ones = theirs.attack_single_run(left, true, x_init=start)[1]
        standing = [k for k, stands in zip(standing, robust_ones.tolist(), strict=True) if stands]
    return {samples[k].id for k in standing}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("norm", "eps"), [("linf", RADIUS), ("linf", 24.0), ("l2", 0.5), ("l2", 0.7)])
def test_the_preset_autoattack_leaves_standing_what_pyautoattack_leaves_standing(attack, norm, eps, seed):
    """The whole of it, run by the runner: both losses, nine targets, survivors only; sample by sample."""
    setup, toy = make_setup("toy", eps=(eps,)), trained_toy()
    found = attack(short("autoattack", 30), setup=setup, norm=norm, eps=(eps,), seed=seed, protocol="paper")
    labels, threat = toy.labels[:COUNT], threat_model(norm, eps)
    assert robust(found, eps) == of_autoattack(setup.samples, setup.images, labels, threat, seed)
    assert 0 < len(robust(found, eps)) < COUNT


# ---- All of AutoAttack -----------------------------------------------------------------------------------


def test_all_of_autoattack_runs_and_its_black_box_half_finds_nothing_new(attack):
    found = attack([*short("autoattack-full")[:-1], replace(PRESETS["autoattack-full"].steps[-1], steps=200)])
    assert {"apgd-ce-10", "apgd-ce", "apgd-t-1", "fab-t", "square"} <= {r.step for r in found.records}
    verdicts = {check["name"]: check["ok"] for check in found.header.checks}
    assert all(verdicts.values()), verdicts
    assert "white_box_at_least_black_box" in verdicts


@pytest.mark.parametrize(
    ("kind", "steps", "norm", "eps"),
    [("square", 150, "linf", 40.0), ("square", 100, "l2", 1.5), ("fab-t", 6, "linf", 14.0), ("fab-t", 6, "l2", 0.5)],
)
def test_borrowed_attacks_are_the_same_in_any_batch_and_stay_in_the_ball(attack, kind, steps, norm, eps):
    step = AttackStep(kind, kind, steps, "untargeted", "clean", 0.0)
    ball = {"norm": norm, "eps": (eps,), "setup": make_setup("toy", eps=(eps,))}
    whole, seven, single = (attack([step], batch_size=size, **ball) for size in (32, 7, 1))
    assert bare(whole.records) == bare(seven.records) == bare(single.records)
    assert all(r.error is None and r.distance <= 1.00001 * eps for r in whole.records)
    assert 0 < len(robust(whole, eps)) < COUNT


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_all_of_autoattack_runs_on_few_classes(attack, classes):
    """Targets are clamped to the rivals there are; targeted DLR needs four classes."""
    steps = [*short("autoattack-full", 6)[:-1], replace(PRESETS["autoattack-full"].steps[-1], steps=20)]
    found = attack(steps, setup=few_classes(classes), eps=(2.0,))
    targeted = {r.step for r in found.records if r.step.startswith("apgd-t")}
    assert targeted == ({f"apgd-t-{rank}" for rank in range(1, classes)} if classes >= 4 else set())
    assert {"apgd-ce", "fab-t", "square"} <= {r.step for r in found.records}
    assert not [r for r in found.records if r.error]


def few_classes(classes):
    """A set-up of the runner on a toy of its own."""
    toy, names = trained_toy(classes), NAMES[:classes]
    encoder = SimpleNamespace(patch_tokens=None)
    judge = Linear(toy.model, torch.eye(classes), 1.0, names)
    setup = make_setup("toy", eps=(2.0,))
    samples = tuple(
        replace(s, references=(names[k],)) for s, k in zip(setup.samples, toy.labels.tolist(), strict=False)
    )
    task = ZeroShot(replace(setup.task.dataset, samples=samples, classnames=names))
    return replace(setup, task=task, images=toy.images[:COUNT], victim=judge, surrogate=judge, encoder=encoder)


def test_square_refuses_what_is_no_classifier(attack):
    with pytest.raises(UsageError, match="'square' attacks the logits of a classifier"):
        attack([AttackStep("square", "square", 10, EMBEDDING, "clean", 0.0)])


# ---- Successes that are none ------------------------------------------------------------------------------


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


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_a_success_that_the_judge_does_not_see_is_searched_on(attack, precision, protocol):
    """As where an answer that counts begins with another token than all accepted answers."""
    half = HalfPrecision(Boastful(victim()), ToyEncoder()) if precision != "float32" else None
    boasting = attack(short("apgd"), setup=make_setup("toy", judge=Boastful(victim()), half=half), precision=precision,
                      protocol=protocol)  # fmt: skip
    honest = attack(short("apgd"), protocol=protocol)
    assert robust(boasting) == robust(honest)
    assert 0 < len(robust(honest)) < COUNT
    spent = {r.sample_id: r.evaluations for r in boasting.records if r.step != "clean"}
    assert set(spent.values()) == {12}, "all steps of one search, none of the search that stopped at once"
    assert all(r.distance > 0 for r in boasting.records if r.step != "clean" and r.score == 0)


def test_a_success_that_is_one_is_not_searched_again(attack, monkeypatch):
    seen, honest = [], KINDS["apgd"]
    monkeypatch.setitem(KINDS, "apgd", lambda *job: (seen.append(job[-1].stop_when_fooled), honest(*job))[1])
    attack(short("apgd"))
    assert seen == [True]


# ---- Precision -------------------------------------------------------------------------------------------


def coarse(images):
    """A model in very low precision: its gradients are right, its verdicts often wrong."""
    return images + ((images * 16).round() / 16 - images).detach()


def halved(**options):
    rough = victim(**options)
    return HalfPrecision(rough, rough.encoder)


def test_a_search_in_half_precision_is_no_weaker_than_one_in_float32(attack):
    full = attack(short("autoattack"))
    mixed = attack(short("autoattack"), setup=make_setup("toy", half=halved(spoil=coarse)), precision="bf16")
    assert robust(mixed) <= robust(full)
    assert all(r.error is None for r in mixed.records)


def test_what_a_half_precision_search_cannot_break_is_searched_in_float32(attack):
    deaf = halved(spoil=lambda images: images.detach() + 0 * images)  # no gradient: this search finds nothing
    mixed = attack(short("apgd"), setup=make_setup("toy", half=deaf), precision="fp16")
    full = attack(short("apgd"))
    assert robust(mixed) == robust(full)
    cost = {r.sample_id: r.evaluations for r in full.records if r.step != "clean"}
    assert all(r.evaluations > cost[r.sample_id] for r in mixed.records if r.step != "clean" and r.score == 100)


def test_a_verdict_of_half_precision_counts_only_where_the_protocol_says_so(attack):
    wrong = halved(spoil=lambda images: 0 * images)  # says the same of every image
    setup = make_setup("toy", half=wrong)
    strict = attack(short("apgd", 1), setup=setup, precision="fp16")
    paper = attack(short("apgd", 1), setup=setup, precision="fp16", protocol="paper")
    clean = [{r.sample_id: r.score for r in found.records if r.step == "clean"} for found in (strict, paper)]
    assert set(clean[0].values()) == {100.0}
    assert min(clean[1].values()) == 0.0


def test_a_step_in_single_precision_ignores_the_half_precision_model(attack):
    setup = make_setup("toy", half=halved())
    attack([replace(step, precision="float32") for step in short("apgd")], setup=setup, precision="bf16")
    assert setup.half.encoder.seen == []


@pytest.mark.parametrize(("protocol", "wanted"), [("strict", "start"), ("paper", "reference")])
def test_the_protocol_settles_the_first_checkpoint(attack, monkeypatch, protocol, wanted):
    seen, honest = [], KINDS["apgd"]
    monkeypatch.setitem(KINDS, "apgd", lambda *job: (seen.append(job[-1].first_checkpoint), honest(*job))[1])
    attack(short("apgd", 2), protocol=protocol)
    assert set(seen) == {wanted}


# ---- Attacks without a task ------------------------------------------------------------------------------


def test_the_embedding_attack_moves_the_embedding_further_than_noise():
    toy, encoder = trained_toy(), ToyEncoder()
    step = PRESETS["embedding"].steps[0]
    job = Job((step,), (), toy.images[:4], RADIUS, ThreatModel("linf", RADIUS / 255))
    away = objective(job, victim(), encoder)
    rows = torch.arange(4)
    assert away(toy.images[:4], rows).loss.abs().max() < 1e-5
    assert (away(toy.images[[1, 2, 3, 0]], rows).loss > 0.1).all()
    assert not away(toy.images[:4], rows).fooled.any()


def test_the_embedding_attack_breaks_samples_without_their_labels(attack):
    found = attack(short("embedding", 20))
    assert len(robust(found)) < COUNT
    assert {check["name"]: check["ok"] for check in found.header.checks}["beats_noise"]


# ---- Laws ------------------------------------------------------------------------------------------------


def test_scores_never_rise_with_eps(attack):
    radii = (4.0, 16.0, 32.0)
    scores = [
        worst_scores(found.header, found.records, eps)
        for found in [attack(short("autoattack", 8), eps=radii, setup=make_setup("toy", eps=radii))]
        for eps in (0, *radii)
    ]
    for smaller, larger in pairwise(scores):
        assert all(larger[s] <= smaller[s] for s in smaller)
    assert sum(scores[0].values()) > sum(scores[-1].values())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_scores_never_rise_with_more_steps(attack, norm):
    """Neither with more steps of one climb, nor with more rounds."""
    eps = RADIUS if norm == "linf" else 0.7
    ball = {"norm": norm, "eps": (eps,), "setup": make_setup("toy", eps=(eps,))}
    climbs = [[AttackStep("pgd", "pgd", n, "untargeted", "clean", 0.2)] for n in (1, 4, 10, 30)]
    rounds = [[*climbs[0], *short("autoattack", 8)][:n] for n in (1, 2, 11)]
    for series in (climbs, rounds):
        left = [robust(attack(steps, **ball), eps) for steps in series]
        assert all(more <= fewer for fewer, more in pairwise(left))
        assert left[-1] < left[0]


def test_a_repeated_run_saves_the_same_images_bit_for_bit(attack, tmp_path):
    runs = [attack(short("autoattack"), save_adversarial=True) for _ in range(2)]
    assert bare(runs[0].records) == bare(runs[1].records)
    files = [sorted((one.directory / "adversarial").rglob("*.safetensors")) for one in runs]
    assert files[0]
    assert [f.name for f in files[0]] == [f.name for f in files[1]]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()


# ---- Images on disk --------------------------------------------------------------------------------------


def test_saved_images_lie_in_the_ball_and_the_png_has_a_score_of_its_own(attack):
    found = attack(short("apgd"), save_adversarial=True)
    toy, judge, store = trained_toy(), victim(), ImageStore(found.directory / "adversarial")
    lost = [r for r in found.records if r.step != "clean" and r.score == 0]
    assert lost
    for record in lost:
        row = int(record.sample_id[1:])
        clean = toy.images[row : row + 1]
        exact = store.worst([SimpleNamespace(id=record.sample_id)], clean, RADIUS)
        assert float((exact - clean).abs().max()) <= RADIUS / 255 + 2**-23
        picture = to_tensor(Image.open(store.path(record.sample_id, RADIUS).with_suffix(".png")))[None]
        assert (picture - exact).abs().max() <= 0.5 / 255 + 1e-6
        answers = [judge.predict(images, [None])[0].text for images in (exact, picture)]
        assert answers[0] == record.prediction
        assert record.png_score == (100.0 if answers[1] == NAMES[int(toy.labels[row])] else 0.0)
    assert all(r.png_score is None for r in found.records if r.step == "clean")


def test_rounding_to_8_bits_can_undo_an_attack(attack):
    """A tiny ball between two grey levels: the exact image fools, the PNG is the clean image again."""
    step = AttackStep("apgd", "apgd", 8, "untargeted", "clean", 2.0)
    sharp = victim(spoil=lambda images: 0.5 + 200 * (images - (images * 255).round().detach() / 255) + 0 * images)
    setup = make_setup("toy", judge=sharp, eps=(0.25,))
    grid = (setup.images * 255).round() / 255
    setup = replace(setup, images=grid)
    said = sharp.predict(grid, setup.samples)
    samples = tuple(replace(s, references=(answer.text,)) for s, answer in zip(setup.samples, said, strict=True))
    setup = replace(setup, task=ZeroShot(replace(setup.task.dataset, samples=samples)))
    found = attack([step], setup=setup, eps=(0.25,), save_adversarial=True)
    attacked = [r for r in found.records if r.step != "clean"]
    assert any(r.score == 0 for r in attacked)
    assert all(r.png_score == 100 for r in attacked)


def test_images_of_attacks_that_were_not_kept_are_not_promised(attack, tmp_path):
    once = {"output": tmp_path / "same"}
    attack(short("apgd", 2), **once)
    with pytest.raises(UsageError, match=r"24 attacks .* without --save-adversarial: their images are gone"):
        attack(short("apgd", 2), **once, save_adversarial=True)
    assert attack(short("apgd", 2), **once).header.status == "complete"


def test_records_without_a_png_score_are_written_as_before():
    line = Record("s", "g", "clean", 0.0, "a", 100.0, None, 0.0, 0, None, 0.1).to_json()
    assert "png_score" not in line
    assert Record.from_json(line).png_score is None
    scored = msgspec.structs.replace(Record.from_json(line), png_score=50.0)
    assert Record.from_json(scored.to_json()) == scored


# ---- Batch size ------------------------------------------------------------------------------------------


class Cuda(BatchSize):
    """A pretended device of which each sample takes one hundredth."""

    def __init__(self, fixed=None):
        super().__init__(fixed, SimpleNamespace(type="cuda"))
        self.held = 0

    def done(self, size):
        self.held = size
        super().done(size)

    def peak_share(self):
        return self.held / 1000


def test_the_batch_grows_while_memory_allows():
    batches = Cuda()
    sizes = []
    for _ in range(6):
        sizes.append(batches.size)
        batches.done(batches.size)
    assert sizes == [64, 128, 256, 512, 512, 512]


def test_a_ragged_last_batch_and_a_fixed_size_do_not_grow():
    batches, fixed = Cuda(), Cuda(8)
    batches.done(5)
    fixed.done(8)
    assert (batches.size, fixed.size) == (64, 8)


def test_out_of_memory_halves_and_never_grows_again(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    batches = Cuda()
    batches.out_of_memory(64)
    batches.done(32)
    assert batches.size == 32
    batches.out_of_memory(1)
    assert batches.size == 1


def test_large_images_go_in_small_batches_on_a_cpu():
    """There, what does not fit gets the process killed."""
    cpu = torch.device("cpu")
    assert [BatchSize(None, cpu, side).size for side in (48, 224)] == [256, 4]
    assert BatchSize(32, cpu, 224).size == 32


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 400000000000000 bytes. Error code 12 (Cannot allocate memory)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory: you tried to "),
        MemoryError(),
    ],
)  # fmt: skip
def test_running_out_of_memory_is_recognised_in_all_its_wordings(error):
    def work(batch):
        raise error

    assert within_memory(work, [1, 2]) is None


def test_a_real_allocation_that_fails_is_recognised():
    assert within_memory(lambda batch: torch.empty(10**15), [1]) is None


def test_any_other_error_is_passed_on():
    with pytest.raises(RuntimeError, match="illegal memory access"):
        within_memory(lambda batch: _raise(RuntimeError("CUDA error: an illegal memory access was encountered")), [1])


def _raise(error):
    raise error


class Narrow:
    """Memory for a number of images at once, and none at all for the images of some samples."""

    def __init__(self, room, shut_out=()):
        toy = trained_toy()
        self.room, self.refused, self.sizes = room, toy.images[list(shut_out)], []

    def __call__(self, images):
        near = (images.detach()[:, None] - self.refused).abs().flatten(2).amax(2) < 0.07 + RADIUS / 255
        if len(images) > self.room or bool(near.any()):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.sizes.append(len(images))
        return images


def test_too_little_memory_for_a_batch_changes_no_result(attack):
    narrow = Narrow(5)
    starved = attack(short("apgd"), setup=make_setup("toy", judge=victim(spoil=narrow)))
    assert bare(starved.records) == bare(attack(short("apgd")).records)
    assert max(narrow.sizes) <= 5


def test_too_little_memory_for_a_volley_takes_its_steps_one_by_one(attack):
    steps = short("autoattack")
    starved = attack(steps, setup=make_setup("toy", judge=victim(spoil=Narrow(1))))
    assert robust(starved) == robust(attack(steps))
    assert starved.header.status == "complete"


def test_a_sample_that_does_not_fit_alone_is_an_error_and_no_other_is_lost(attack):
    starved = attack(short("apgd"), setup=make_setup("toy", judge=victim(spoil=Narrow(24, shut_out=[3]))))
    failed = {r.sample_id: r.error for r in starved.records if r.error}
    assert failed == {"s03": TOO_LARGE}
    assert starved.header.status == "failed"
    others = [[row for row in bare(one.records) if row[0] != "s03"] for one in (starved, attack(short("apgd")))]
    assert others[0] == others[1]


def test_a_step_that_failed_is_taken_again_by_the_same_command(attack, tmp_path):
    """And the steps after it are not held back: what a radius comes to is the worst of all that went well."""
    steps = [replace(step, start="clean", volley="") for step in short("autoattack")[:3]]

    class Failing(Boastful):
        def objective(self, images, samples, goal):
            inner = self.honest.objective(images, samples, goal)
            return lambda x, rows: Progress(inner(x, rows).loss * torch.nan, inner(x, rows).fooled)

    once = {"output": tmp_path / "same"}
    first = attack(steps, setup=make_setup("toy", source=Failing(victim()), judge=victim()), **once)
    assert {r.step for r in first.records if r.error} == {step.name for step in steps}
    assert first.header.status == "failed"
    again = attack(steps, **once)
    assert again.header.status == "complete"
    assert robust(again) == robust(attack(steps))


def test_the_toy_is_a_classifier_like_any():
    """The tests above speak of the runner only if this victim is what the runner sees elsewhere."""
    judge = victim()
    goal = judge.objective(trained_toy().images[:3], make_setup("toy").samples[:3], "untargeted")
    assert isinstance(goal, Classification)
