"""Transfer: which pairs run, and ensembles of surrogates."""

import pytest
import torch

import bench
from attacks.objective import evaluate, evaluate_with_gradient
from attacks.presets import PRESETS
from bench.config import Request, resolve
from bench.errors import UsageError
from bench.models.encoders.load import load_encoder
from bench.running.certify import AttackBatch, objective
from bench.running.load import prepare
from bench.running.units import threat_model
from bench.running.volley import Volley
from bench.verify import verify
from tasks.embedding import EmbeddingDistance


def test_several_surrogates_give_a_run_for_every_pair():
    configs = resolve(Request.of(encoder="clip,fare", task="vqa", surrogate="clip,fare4", attack="transfer"))
    assert [(c.encoder, c.surrogate) for c in configs] == [
        ("clip", "clip"), ("clip", "fare4"), ("fare4", "clip"), ("fare4", "fare4"),
    ]  # fmt: skip
    assert len({c.directory for c in configs}) == 4


def test_a_transfer_needs_a_surrogate():
    with pytest.raises(UsageError, match="needs --surrogate"):
        resolve(Request.of(encoder="clip", task="vqa", attack="transfer"))


def ensemble(**options):
    asked = {"encoder": "fare4", "task": "vqa", "surrogate": "clip,tecoa2", "ensemble": "mean", "attack": "transfer"}
    return resolve(Request.of(**asked | {"device": "cpu"} | options))


def test_an_ensemble_is_one_run_that_names_its_members():
    (config,) = ensemble()
    assert (config.surrogate, config.attack_name, config.weights) == (
        "clip+tecoa2", "transfer-from-clip+tecoa2", (0.5, 0.5),
    )  # fmt: skip
    assert "transfer-from-clip+tecoa2" in config.directory.name
    assert len({ensemble(ensemble=e)[0].directory for e in ("mean", "3,1", "1,3")}) == 3
    assert ensemble(ensemble="3,1")[0].weights == (0.75, 0.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"surrogate": "clip"}, "--ensemble is of several encoders: name them with --surrogate A,B"),
        ({"surrogate": None, "attack": "pgd"}, "--ensemble is of several encoders"),
        ({"ensemble": "1,2,3"}, "a number above 0 for each of the 2 encoders, not '1,2,3'"),
        ({"ensemble": "1,0"}, "a number above 0 for each"),
        ({"ensemble": "1,nan"}, "a number above 0 for each"),
        ({"ensemble": "max"}, "takes 'mean', or a number above 0"),
    ],
)
def test_an_ensemble_that_is_none_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        ensemble(**options)


def goal_of(config, step):
    """What an attack of this run ascends on its samples, and those samples' images."""
    setup = prepare(config)
    images = setup.images[range(len(setup.samples))]
    batch = AttackBatch(Volley((step,), setup.samples), images, 4.0, threat_model("linf", 4.0))
    return objective(batch, setup.surrogate, setup.encoder), images


def test_the_loss_of_an_ensemble_is_the_weighted_mean_of_its_members():
    """Of the task's goal and of one that needs no task; values and gradients."""
    for name in ("transfer", "embedding"):
        step = PRESETS[name].steps[0]
        asked = {"task": "zeroshot", "dataset": "mini-shape", "limit": 3}
        made, images = goal_of(ensemble(**asked, ensemble="3,1")[0], step)
        parts = [goal_of(ensemble(**asked, surrogate=one, ensemble=None)[0], step)[0] for one in ("clip", "tecoa2")]
        rows, shown = torch.arange(3), (images + 0.01).clamp(max=1)
        found = [evaluate_with_gradient(one, shown, rows, skip_fooled=False) for one in (made, *parts)]
        losses, gradients = [one.loss for one, _ in found], [gradient for _, gradient in found]
        torch.testing.assert_close(losses[0], 0.75 * losses[1] + 0.25 * losses[2])
        torch.testing.assert_close(gradients[0], 0.75 * gradients[1] + 0.25 * gradients[2])
        assert not torch.allclose(losses[1], losses[2])


def test_an_ensemble_of_tokens_is_what_its_encoders_say():
    made, images = goal_of(ensemble(limit=2, attack="embedding", dataset="mini-vqa")[0], PRESETS["embedding"].steps[0])
    shown, rows = (images + 0.02).clamp(max=1), torch.arange(2)
    alone = [evaluate(EmbeddingDistance(load_encoder(n), images), shown, rows).loss for n in ("clip", "tecoa2")]
    torch.testing.assert_close(evaluate(made, shown, rows).loss, sum(alone) / 2)


def test_a_run_on_an_ensemble_says_what_it_was_made_on_and_is_verified(tmp_path):
    options = {"limit": 3, "eps": 4, "jobs": 1, "device": "cpu", "progress": False, "output": tmp_path}
    (run,) = bench.run(
        "fare2", "vqa", surrogate="clip,tecoa2", ensemble="3,1", attack="embedding", save_adversarial=True, **options
    ).runs
    header = run.header
    assert (header.surrogate, header.surrogates) == ("0.75*clip+0.25*tecoa2", ("clip", "tecoa2"))
    assert header.ensemble == {"clip": 0.75, "tecoa2": 0.25}
    assert {"surrogate clip", "surrogate tecoa2"} < header.weights.keys()
    assert header.config["ensemble"] == "3,1"
    assert verify(run, progress=False).mismatches == ()
    (again,) = resolve(Request.of(**header.config))
    assert again.directory == run.directory


def test_targeted_volleys_are_made_on_an_ensemble(tmp_path):
    """AutoAttack's nine targets side by side: one forward pass of each member for all of them."""
    options = {"limit": 3, "eps": 2, "jobs": 1, "device": "cpu", "progress": False, "output": tmp_path}
    (run,) = bench.run(
        "fare2", "zeroshot", dataset="mini-shape", surrogate="clip,tecoa2", ensemble="mean", attack="autoattack",
        **options,
    ).runs  # fmt: skip
    steps = {record.step for record in run.records}
    assert {"clean", "apgd-ce", "apgd-t-1"} <= steps
    assert not [record.error for record in run.records if record.error]
