"""Laws of whole runs: scores never rise with eps or steps, repeated runs are equal; attacks without a task."""

from itertools import pairwise

import pytest
import torch

from attacks.presets import PRESETS, AttackStep
from attacks.threat import ThreatModel
from bench.records.worst import worst_scores
from bench.running.certify import AttackBatch, objective
from bench.running.volley import Volley
from tests.bench.toy_runs import (
    COUNT,
    RADIUS,
    ToyEncoder,
    bare,
    make_setup,
    robust,
    short,
    victim,
)
from tests.toys import trained_toy


def test_the_embedding_attack_moves_the_embedding_further_than_noise():
    toy, encoder = trained_toy(), ToyEncoder()
    step = PRESETS["embedding"].steps[0]
    batch = AttackBatch(Volley((step,), ()), toy.images[:4], RADIUS, ThreatModel("linf", RADIUS / 255))
    away = objective(batch, victim(), encoder)
    rows = torch.arange(4)
    assert away(toy.images[:4], rows).loss.abs().max() < 1e-5
    assert (away(toy.images[[1, 2, 3, 0]], rows).loss > 0.1).all()
    assert not away(toy.images[:4], rows).fooled.any()


def test_the_embedding_attack_breaks_samples_without_their_labels(attack):
    found = attack(short("embedding", 20))
    assert len(robust(found)) < COUNT
    assert {check["name"]: check["ok"] for check in found.header.checks}["beats_noise"]


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
