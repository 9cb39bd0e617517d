"""What a run and its verification do grows as the number of samples: twice as many take twice as many calls."""

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from PIL import Image

from attacks.presets import AttackStep
from bench import verify
from bench.data.bank import Images
from bench.records.worst import worst_scores
from bench.running import loop
from bench.running.history import History, Tally
from bench.running.images import as_png
from tasks.base import Dataset, Sample
from tasks.zeroshot import ZeroShot
from tests.bench.runs import make_header, make_record
from tests.bench.toy_runs import NAMES, RADIUS, make_setup, run, victim
from tests.toys import trained_toy

FEW, MANY = 40, 80
ENOUGH = 100  # calls at twice the samples; what is called less is not looked at
SLACK = 2.2  # a function that looks at all samples in each batch is called four times as often
STEPS = tuple(
    AttackStep(name, "pgd", 1, "untargeted", start, 1.0) for name, start in zip("ab", ("clean", "best"), strict=True)
)


@contextmanager
def counted():
    """Calls of the package's functions within the block, generators each time they go on."""
    calls = Counter()

    def count(frame, event, _):
        if event == "call" and frame.f_globals.get("__name__", "").startswith(("bench.", "tasks.", "attacks.")):
            calls[frame.f_globals["__name__"], frame.f_code.co_qualname, frame.f_code.co_firstlineno] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def setup_of(count, session=None):
    """The toy's, with so many samples."""
    toy, picture = trained_toy(), Image.new("RGB", (8, 8))
    rows = [k % len(toy.labels) for k in range(count)]
    samples = tuple(Sample(f"s{k}", picture, "", (NAMES[toy.labels[row]],), f"s{k}") for k, row in enumerate(rows))
    setup = make_setup("toy", victim(), eps=(RADIUS / 2, RADIUS))
    return replace(
        setup,
        task=ZeroShot(Dataset("toy", samples, classnames=NAMES)),
        images=Images(as_png(toy.images[rows]), torch.device("cpu")),
        header=replace(setup.header, n_samples=count, attack_steps=[step.as_data() for step in STEPS]),
        session=session,
    )


def grown(few, many):
    """What was called more than so many times as often for twice the samples."""
    seen = {what for what, times in many.items() if times >= ENOUGH}
    return {what: (few[what], many[what]) for what in seen if many[what] > SLACK * max(few[what], ENOUGH / SLACK)}


@pytest.mark.parametrize("session", [None, 6])
def test_a_run_is_linear_in_its_samples(tmp_path, monkeypatch, session):
    def calls(count):
        options = {"batch_size": 2, "samples": count, "eps": (RADIUS / 2, RADIUS), "save_adversarial": True}
        setup = setup_of(count, session)
        with counted() as found:
            made = run(tmp_path / str(count), STEPS, setup=setup, monkeypatch=monkeypatch, **options)
        assert made.header.status == "complete"
        return found

    few, many = calls(FEW), calls(MANY)
    assert grown(few, many) == {}


def test_a_verification_is_linear_in_the_samples(tmp_path, monkeypatch):
    def calls(count):
        options = {"samples": count, "eps": (RADIUS / 2, RADIUS), "save_adversarial": True}
        setup = setup_of(count)
        made = run(tmp_path / str(count), STEPS, setup=setup, monkeypatch=monkeypatch, **options)
        monkeypatch.setattr(verify, "models_of", lambda header, **changes: header)
        monkeypatch.setattr(verify, "prepare", lambda config: setup)
        monkeypatch.setattr(verify, "BATCH", 2)
        with counted() as found:
            verification = verify.verify(made, progress=False)
        assert (verification.outcome, verification.clean, verification.images > count / 4) == ("verified", count, True)
        return found

    few, many = calls(FEW), calls(MANY)
    assert grown(few, many) == {}


def test_what_grows_faster_is_found():
    assert grown(Counter(a=100, b=100, c=3), Counter(a=200, b=400, c=9, d=500)) == {"b": (100, 400), "d": (0, 500)}


class Heard:
    """A display that keeps what it is told."""

    def __init__(self):
        self.details = []

    def begin(self, label, total, done=0):
        self.label = label

    def advance(self, count, detail=""):
        self.details.append((self.label, detail))

    def end(self):
        pass


@pytest.mark.parametrize("session", [None, 6])
def test_what_is_shown_is_what_the_records_say(tmp_path, monkeypatch, session):
    heard = Heard()
    monkeypatch.setattr(loop, "Silent", lambda: heard)
    options = {"batch_size": 2, "samples": FEW, "eps": (RADIUS / 2, RADIUS)}
    made = run(tmp_path, STEPS, setup=setup_of(FEW, session), monkeypatch=monkeypatch, **options)
    for name, radius in (("clean", 0.0), (f"{RADIUS / 2:g}/255", RADIUS / 2)):
        last = [detail for label, detail in heard.details if label.endswith(name)][-1]
        scores = worst_scores(made.header, made.records, radius)
        robust = sum(score == 100 for score in scores.values())
        assert last == f"{robust} of {FEW} robust, accuracy (%) {sum(scores.values()) / FEW:.1f}"


def test_a_tally_follows_the_records():
    history = History(make_header(radii=(4.0,)), [make_record(f"s{k}", score=100.0) for k in range(3)])
    tally = Tally(history, 4.0, lambda key, score: score < 50)
    assert tally.words("accuracy") == ""
    tally.update(["s0", "s1", "s2"])
    assert tally.words("accuracy") == "3 of 3 robust, accuracy 100.0"
    failed = make_record("s1", "a", 4.0, None, error="no")
    history.add([make_record("s0", "a", 4.0, 40.0), failed])
    tally.update(["s0", "s1"])
    assert tally.words("accuracy") == "1 of 2 robust, accuracy 70.0"  # at 4/255 the second has an error alone
    history.add([make_record("s1", "b", 4.0, 70.0)])
    tally.update(["s1", "s1", "s2"])
    assert tally.words("accuracy") == "2 of 3 robust, accuracy 70.0"
