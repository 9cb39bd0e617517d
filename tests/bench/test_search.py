"""What the runner adds to an attack: volleys, half-precision searches, PNG scores, batch sizes, attacks without a task.

Everything runs on a toy classifier, in milliseconds.
"""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from attacks.objective import Classification
from attacks.presets import EMBEDDING, PRESETS, AttackStep
from attacks.threat import ThreatModel
from bench.adversarial import ImageStore
from bench.batches import BatchSize
from bench.errors import UsageError
from bench.records import Record
from bench.search import Job, objective
from bench.setup import HalfPrecision
from bench.stats import worst_scores
from tasks.zeroshot import ZeroShot
from tests.bench.toy_runs import COUNT, NAMES, RADIUS, ToyEncoder, bare, make_setup, robust, short, victim
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


@pytest.mark.parametrize("preset", ["autoattack", "autoattack-paper"])
def test_batches_of_any_size_record_the_same(attack, preset):
    whole, seven, single = (attack(short(preset, 6), batch_size=size) for size in (32, 7, 1))
    assert bare(whole.records) == bare(seven.records) == bare(single.records)


def test_a_volley_of_attacks_that_share_no_forward_pass_is_refused(attack):
    steps = [AttackStep(f"ce-{n}", "apgd", 2, "untargeted", "random", 2.0, volley="ce") for n in range(2)]
    with pytest.raises(UsageError, match=r"volley 'ce'.*side by side"):
        attack(steps)


# ---- All of AutoAttack -----------------------------------------------------------------------------------


def test_all_of_autoattack_runs_and_its_black_box_half_finds_nothing_new(attack):
    found = attack([*short("autoattack-full")[:-1], replace(PRESETS["autoattack-full"].steps[-1], steps=200)])
    assert {"apgd-ce-10", "apgd-ce", "apgd-t-1", "fab-t", "square"} <= {r.step for r in found.records}
    verdicts = {check["name"]: check["ok"] for check in found.header.checks}
    assert all(verdicts.values()), verdicts
    assert "white_box_at_least_black_box" in verdicts


def test_square_is_the_same_in_any_batch(attack):
    step = AttackStep("square", "square", 150, "untargeted", "clean", 0.0)
    wide = {"eps": (40.0,), "setup": make_setup("toy", eps=(40.0,))}
    whole, single = (attack([step], batch_size=size, **wide) for size in (32, 5))
    assert bare(whole.records) == bare(single.records)
    assert 0 < len(robust(whole, 40.0)) < COUNT


def test_square_refuses_what_is_no_classifier(attack):
    with pytest.raises(UsageError, match="'square' attacks the logits of a classifier"):
        attack([AttackStep("square", "square", 10, EMBEDDING, "clean", 0.0)])


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
    from attacks.kinds import KINDS

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


def test_scores_never_rise_with_eps_or_with_more_steps(attack):
    radii = (4.0, 16.0, 32.0)
    scores = [
        worst_scores(found.header, found.records, eps)
        for found in [attack(short("autoattack", 8), eps=radii, setup=make_setup("toy", eps=radii))]
        for eps in (0, *radii)
    ]
    for smaller, larger in pairwise(scores):
        assert all(larger[s] <= smaller[s] for s in smaller)
    assert sum(scores[0].values()) > sum(scores[-1].values())
    brief, long = (attack([AttackStep("pgd", "pgd", n, "untargeted", "clean", 0.2)]) for n in (1, 10))
    assert robust(long) <= robust(brief)


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
        answers = [judge.predict(images, [None])[0] for images in (exact, picture)]
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
    samples = tuple(replace(s, references=(name,)) for s, name in zip(setup.samples, said, strict=True))
    setup = replace(setup, task=ZeroShot(replace(setup.task.dataset, samples=samples)))
    found = attack([step], setup=setup, eps=(0.25,), save_adversarial=True)
    attacked = [r for r in found.records if r.step != "clean"]
    assert any(r.score == 0 for r in attacked)
    assert all(r.png_score == 100 for r in attacked)


def test_records_without_a_png_score_are_written_as_before():
    line = Record("s", "g", "clean", 0.0, "a", 100.0, None, 0.0, 0, (), None, 0.1).to_json()
    assert "png_score" not in line
    assert Record.from_json(line).png_score is None
    scored = replace(Record.from_json(line), png_score=50.0)
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
    with pytest.raises(UsageError, match="batch size 1"):
        batches.out_of_memory(1)


def test_the_toy_is_a_classifier_like_any():
    """The tests above speak of the runner only if this victim is what the runner sees elsewhere."""
    judge = victim()
    goal = judge.objective(trained_toy().images[:3], make_setup("toy").samples[:3], "untargeted")
    assert isinstance(goal, Classification)
