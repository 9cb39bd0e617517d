"""An answer behind which a number is not finite counts for nothing: an error row, clean, attacked and as a PNG."""

import msgspec
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from attacks.apgd import apgd
from attacks.presets import PRESETS, AttackStep, Preset
from attacks.threat import ThreatModel
from bench.cli import main
from bench.config import Request, resolve
from bench.models.encoders.encoder import Encoder
from bench.models.victims.llava.model import Llava, load_llava
from bench.records import load_run
from bench.records.worst import worst_scores
from bench.running.attack_batch import Attacker
from bench.running.loop import execute
from bench.running.plugins import task_class
from bench.verify import verify
from tasks.base import NOT_FINITE, Answer, Dataset, Sample
from tasks.embedding import EmbeddingDistance
from tasks.protocol import STRICT
from tests.bench.models.llava_checkpoint import SIZE, small_encoder, write_llava
from tests.bench.toy_runs import COUNT, NAMES, Linear, ToyEncoder, make_setup, short, victim

PROMPTS = [
    "what is in the image?",
    "how many birds are near the sea, and is the car red or white?\nAnswer the question using a single word or phrase.",
    "a?",
    "is it a dog?\nAnswer the question using a single word or phrase.",
]
VALUES = [torch.nan, torch.inf, -torch.inf]


def _spoilt(original, method, is_bad, value=torch.nan):
    """A method of encoders whose output is not finite in one place for some images."""

    def spoilt(self, images, *arguments):
        found = original(self, images, *arguments).clone()
        bad = is_bad(images)
        found[bad] = torch.where(torch.arange(found[0].numel()).view(found[0].shape) == 1, value, found[bad])
        return found

    return method, spoilt


def _reddish(images):
    return images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2))


def _rows(records, **wanted):
    return [r for r in records if all(getattr(r, key) == value for key, value in wanted.items())]


# ---- A classifier ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
def test_a_clean_answer_that_is_not_finite_is_an_error_row_and_the_run_has_failed(attack, value):
    healthy = attack(short("pgd"))

    def spoil(images):
        return torch.where((images == setup.images.pixels[5]).flatten(1).all(1)[:, None, None, None], value, images)

    setup = make_setup("toy", asked=victim(spoil=spoil))
    found = attack(short("pgd"), setup=setup)
    assert found.header.status == "failed"
    assert [(r.sample_id, r.step, r.prediction, r.score, r.error) for r in found.records if r.error] == [
        ("s05", "clean", "", None, NOT_FINITE)
    ]
    assert not [r for r in found.records if r.sample_id == "s05" and r.step != "clean"]
    others = [[r for r in run.records if r.sample_id != "s05"] for run in (found, healthy)]
    assert [msgspec.structs.replace(r, seconds=0) for r in others[0]] == [
        msgspec.structs.replace(r, seconds=0) for r in others[1]
    ]


def _asking(asked):
    """The attack ascends a healthy model; another one answers."""
    return make_setup("toy", asked=asked, source=victim())


class Fragile(Linear):
    """A toy one of whose logits is not finite for some images."""

    def __init__(self, is_bad):
        super().__init__(ToyEncoder(), torch.eye(10), 1.0, NAMES)
        object.__setattr__(self, "is_bad", is_bad)

    def logits(self, images):
        found = super().logits(images)
        return found.masked_fill(self.is_bad(images)[:, None] & (torch.arange(10) == 3), -torch.inf)


def _in_eight_bits(images):
    return ((images * 255).round() / 255 == images).flatten(1).all(1)


def _no_clean_image(images):
    clean = make_setup("toy").images.pixels
    return ~torch.stack([(image == clean).flatten(1).all(1).any() for image in images])


def test_an_adversarial_answer_that_is_not_finite_is_neither_robust_nor_broken(attack):
    found = attack(short("pgd"), setup=_asking(Fragile(_no_clean_image)))
    right = {r.sample_id for r in found.records if r.step == "clean" and r.score == 100}
    attacked = [r for r in found.records if r.step != "clean"]
    assert {r.sample_id for r in attacked} == right
    assert {(r.error, r.score, r.prediction) for r in attacked} == {(NOT_FINITE, None, "")}
    assert found.header.status == "failed"
    left = worst_scores(found.header, found.records, found.header.radii[0])
    assert left.keys() == {f"s{k:02d}" for k in range(COUNT)} - right


def test_the_answer_to_the_saved_png_must_be_finite_too(attack):
    found = attack(short("pgd"), setup=_asking(Fragile(_in_eight_bits)), save_adversarial=True)
    attacked = [r for r in found.records if r.step != "clean"]
    assert attacked
    assert {r.error for r in attacked} == {f"as an 8-bit PNG, {NOT_FINITE}"}
    assert found.header.status == "failed"
    assert [path.name for path in (found.directory / "adversarial").iterdir()] == ["0"], "clean images alone"


def test_an_unfinite_answer_does_not_confirm_that_a_sample_is_broken():
    setup = make_setup("toy")
    wrong = NAMES[(NAMES.index(setup.samples[0].references[0]) + 1) % 10]

    class Asked:
        def predict(self, images, samples):
            return [Answer(wrong), Answer(wrong, NOT_FINITE)]

    attacker = Attacker.__new__(Attacker)
    attacker.setup = setup
    confirm = attacker._confirm([setup.samples[0]] * 2, Asked())
    assert confirm(setup.images.pixels[:2], torch.arange(2)).tolist() == [True, False]


@pytest.mark.parametrize("attack", ["--attack none", "--attack pgd --eps 4"])
def test_the_command_ends_with_code_1(tmp_path, monkeypatch, attack):
    monkeypatch.setattr(Encoder, *_spoilt(Encoder.forward, "forward", _reddish))
    words = ["run", "--encoder", "fare", "--task", "zeroshot", "--dataset", "mini-shape", "--limit", "8",
             *attack.split(), "--jobs", "1", "--output", str(tmp_path)]  # fmt: skip
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1, result.output
    assert NOT_FINITE in result.output
    run = load_run(next(tmp_path.rglob("run.json")).parent)
    assert run.header.status == "failed"
    assert 0 < len(_rows(run.records, error=NOT_FINITE, step="clean")) < 8


def test_verify_says_where_an_answer_is_not_finite_any_more(tmp_path, monkeypatch):
    (config,) = resolve(
        Request.of(encoder="fare", task="zeroshot", dataset="mini-shape", limit=8, attack="none", output=tmp_path)
    )
    run = load_run(execute(config))
    assert verify(run, progress=False).mismatches == ()
    monkeypatch.setattr(Encoder, *_spoilt(Encoder.forward, "forward", _reddish))
    found = verify(run, progress=False).mismatches
    assert {(m.field, m.recomputed) for m in found} == {("error", NOT_FINITE)}


# ---- A model that generates ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Llava:
    folder = write_llava(tmp_path_factory.mktemp("hub") / "llava")
    return load_llava(str(folder), small_encoder(), conversation_name="vicuna_v1")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_features_that_are_not_finite_spoil_the_answer_of_their_row_only(
    model, pictures, monkeypatch, value, precision
):
    used = model.at(precision)
    healthy = used.generate(pictures, PROMPTS, max_new_tokens=5)
    assert all(answer.error is None for answer in healthy)
    bad = torch.tensor([False, True, False, False])
    monkeypatch.setattr(Encoder, *_spoilt(Encoder.patch_tokens, "patch_tokens", lambda images: bad, value))
    said = used.generate(pictures, PROMPTS, max_new_tokens=5)
    assert [answer.error for answer in said] == [None, NOT_FINITE, None, None]
    assert [a for a in said if a.error is None] == [healthy[k] for k in (0, 2, 3)]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("step", [0, 2, 4])
def test_one_logit_of_any_token_of_an_answer_counts(model, pictures, monkeypatch, value, step):
    _spoil_logits(model, monkeypatch, step, row=2, value=value)
    said = model.generate(pictures, PROMPTS, max_new_tokens=5)
    assert [answer.error for answer in said] == [None, None, NOT_FINITE, None]


def test_what_is_computed_after_the_end_of_an_answer_does_not(model, pictures, monkeypatch):
    first = model.answers(PROMPTS, ["x"] * 4)(pictures, torch.arange(4)).first
    row = 1
    assert (first == first[row]).tolist() == [False, True, False, False]
    monkeypatch.setattr(model, "ends", lambda: [2, int(first[row])])
    expected = model.generate(pictures, PROMPTS, max_new_tokens=4)
    _spoil_logits(model, monkeypatch, 2, row=row, value=torch.nan)
    assert model.generate(pictures, PROMPTS, max_new_tokens=4) == expected
    assert expected[row].error is None


def _spoil_logits(model, monkeypatch, step, row, value):
    steps, original = [], model.logits

    def logits(hidden):
        found = original(hidden).clone()
        if len(steps) == step:
            found[row, :, -1] = value
        steps.append(step)
        return found

    monkeypatch.setattr(model, "logits", logits)


@pytest.mark.parametrize("task", ["vqa", "captioning", "stealth"])
def test_a_text_run_with_unfinite_answers_has_failed(tmp_path, monkeypatch, task):
    monkeypatch.setattr(Encoder, *_spoilt(Encoder.patch_tokens, "patch_tokens", _reddish))
    step = AttackStep("one", "apgd", 1, "target" if task == "stealth" else "reference-0", "clean", 2.0)
    monkeypatch.setitem(PRESETS, "brief", Preset("", (step,)))
    config = resolve(Request.of(encoder="fare", task=task, limit=6, attack="brief", eps=4, output=tmp_path))[0]
    run = load_run(execute(config))
    clean = [r for r in run.records if r.step == "clean"]
    bad = {r.sample_id for r in clean if r.error == NOT_FINITE}
    assert 0 < len(bad) < 6
    assert all(r.score is None and r.prediction == "" for r in clean if r.sample_id in bad)
    assert {r.sample_id for r in run.records if r.step != "clean"}.isdisjoint(bad)
    assert run.header.status == "failed"


# ---- What an attack ascends ------------------------------------------------------------------------------------------

GOALS = {
    "vqa": ["reference-0", "target:maybe"],
    "captioning": ["reference-0"],
    "stealth": ["target"],
    "pope": ["untargeted"],
    "scienceqa": ["untargeted", "wrong-1"],
}


def _asked(task):
    picture = Image.new("RGB", (4, 4))
    references = {"pope": ("yes",)}.get(task, ("red", "a red bar"))
    choices = {"choices": ("red", "blue"), "label": 0} if task == "scienceqa" else {}
    samples = tuple(Sample(str(k), picture, "what is this ?", references, str(k), **choices) for k in range(4))
    return task_class(task)(Dataset("d", samples), STRICT)


def _attacked_by(goal, pictures):
    """Which samples' attack failed, and the others' images."""
    found = apgd(goal, pictures, ThreatModel("linf", 8 / 255), steps=2, stop_when_fooled=False)
    assert not found.fooled[found.failed].any()
    return found.failed.tolist(), found.images[~found.failed]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("task", "goal"), [(task, goal) for task, goals in GOALS.items() for goal in goals])
def test_a_loss_that_is_not_finite_ends_the_attack_on_its_row_only(model, pictures, monkeypatch, task, goal, value):
    asked = _asked(task)
    objective = asked.bind(model).objective(pictures, asked.dataset.samples, goal)
    _, healthy = _attacked_by(objective, pictures)

    def is_bad(images):
        return (images - pictures[2]).abs().amax((1, 2, 3)) < 0.04

    monkeypatch.setattr(Encoder, *_spoilt(Encoder.patch_tokens, "patch_tokens", is_bad, value))
    failed, others = _attacked_by(objective, pictures)
    assert failed == [False, False, True, False]
    assert torch.equal(others, healthy[[0, 1, 3]])


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("method", ["forward", "patch_tokens"])
def test_an_embedding_that_is_not_finite_ends_the_attack_on_its_row_only(pictures, monkeypatch, method, value):
    """Of the goal that needs no task, in either of its two parts."""
    encoder = small_encoder()
    bad = torch.tensor([False, True, False, False])
    spoilt = _spoilt(getattr(Encoder, method), method, lambda images: bad, value)
    objective = EmbeddingDistance(encoder, pictures)
    rows = torch.arange(4)
    monkeypatch.setattr(Encoder, *spoilt)
    assert objective(pictures, rows).loss.isfinite().tolist() == [True, False, True, True]
    begun_with_it = EmbeddingDistance(encoder, pictures)
    monkeypatch.undo()
    assert begun_with_it(pictures, rows).loss.isfinite().tolist() == [True, False, True, True]


@pytest.mark.parametrize("task", ["zeroshot", "vqa", "captioning", "stealth"])
def test_the_embedding_attack_on_unfinite_embeddings_leaves_errors(tmp_path, monkeypatch, task):
    """The victim is well; the encoder that the attack follows is not, for some images, once they are attacked."""

    def spoilt(self, images, *rest, original=Encoder.patch_tokens):
        found = original(self, images, *rest)
        if torch.is_grad_enabled() and images.requires_grad:
            found = torch.where(_reddish(images)[:, None, None], torch.nan, found)
        return found

    monkeypatch.setattr(Encoder, "patch_tokens", spoilt)
    step = AttackStep("away", "apgd", 2, "embedding", "random", 2.0)
    monkeypatch.setitem(PRESETS, "brief", Preset("", (step,)))
    request = Request.of(encoder="fare", task=task, limit=8, attack="brief", eps=4, output=tmp_path)
    run = load_run(execute(resolve(request)[0]))
    clean = _rows(run.records, step="clean")
    assert all(r.error is None for r in clean)
    attacked = _rows(run.records, step="away")
    failed = [r for r in attacked if r.error]
    assert 0 < len(failed) < len(attacked)
    assert {r.error for r in failed} == {"the loss or its gradient is not finite"}
    assert all(r.score is None for r in failed)
    assert run.header.status == "failed"
