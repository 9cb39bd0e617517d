"""Agreement with the original code, which made every number of the fixture (see fixture/README.md)."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.models.victims.openflamingo.generation import Decoding, NewTokens, WithPaddedPrompt, WithPrompt
from bench.models.victims.openflamingo.model import OpenFlamingo
from bench.models.victims.openflamingo.prompts import Prompt
from bench.models.victims.openflamingo.vocabulary import END
from tests.bench.models.victims.openflamingo.released import VARIANTS, expected, images, load, tensors

LOGITS, LOSS, GRADIENT = 1e-3, 1e-3, 2e-4
CASES = [(variant, prompt) for variant in VARIANTS for prompt in expected()["variants"][variant]["prompts"]]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(variant, tmp_path_factory) -> OpenFlamingo:
    return load(variant, tmp_path_factory.mktemp(variant))


@pytest.fixture(scope="module", params=["vqa0", "caption0", "caption2", "vqa2", "batch"])
def prompt(request) -> str:
    return request.param


@pytest.fixture
def facts(variant, prompt) -> dict:
    return expected()["variants"][variant]["prompts"][prompt]


def shown(facts) -> torch.Tensor:
    """(B, T, 3, H, W): of a batch one image a row, else all images of the one row."""
    found = images()[facts["images"]]
    return found[:, None] if len(facts["text"]) > 1 else found[None]


def asked(facts) -> tuple[list[Prompt], torch.Tensor, list[str]]:
    """Prompts, the images that they ask about, and the answers."""
    pictures = shown(facts)
    prompts = [Prompt(text, tuple(row[:-1])) for text, row in zip(facts["query_text"], pictures, strict=True)]
    pairs = zip(facts["text"], facts["query_text"], strict=True)
    return prompts, pictures[:, -1], [text.removeprefix(query).removesuffix(END) for text, query in pairs]


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_patch_tokens_and_latents_are_the_originals(model):
    found = model.encoder.patch_tokens(images(), layer=-1)
    assert torch.allclose(found, tensors()["vision/tokens"], atol=LOGITS)
    assert torch.allclose(model.latents(images()[None]), tensors()["perceiver/out"], atol=LOGITS)


def test_texts_are_tokenised_as_the_originals(model, facts):
    for text, ids, mask in zip(facts["text"], facts["input_ids"], facts["attention_mask"], strict=True):
        assert model.vocabulary.encode(text) == ids[-sum(mask) :]
        assert ids[: -sum(mask)] == [model.vocabulary.pad] * (len(ids) - sum(mask))


def test_logits_losses_and_gradients_of_all_images_are_the_originals(model, variant, prompt, facts):
    leaf = shown(facts).requires_grad_()
    ids, mask = torch.tensor(facts["input_ids"]), torch.tensor(facts["attention_mask"])
    logits = model.logits(leaf, ids, mask)
    nll = cross_entropy(logits[:, :-1].transpose(1, 2), torch.tensor(facts["labels"])[:, 1:], reduction="none").sum(1)
    (gradient,) = torch.autograd.grad(nll.sum(), leaf)
    assert torch.allclose(nll, torch.tensor(facts["loss"]), atol=LOSS)
    assert (((logits.logsumexp(-1) - tensors()[f"{variant}/{prompt}/logsumexp"]).abs() * mask).max()) < LOGITS
    whole, part = tensors().get(f"{variant}/{prompt}/logits"), tensors().get(f"{variant}/{prompt}/answer_logits")
    if whole is not None:
        assert ((logits - whole).abs() * mask[..., None]).max() < LOGITS
    if part is not None:
        assert torch.allclose(logits[:, facts["answer_logits_from"] :], part, atol=LOGITS)
    norms = gradient.flatten(2).norm(dim=2)
    assert torch.allclose(norms, torch.tensor(facts["grad_l2_per_image"]).view_as(norms), rtol=1e-3)
    if (wanted := tensors().get(f"{variant}/{prompt}/grad")) is not None:
        assert relative(gradient, wanted.squeeze(2)) < GRADIENT


def test_scored_answers_are_the_originals(model, variant, prompt, facts):
    """The sum over the answer's tokens, and its gradient with respect to the image that is asked about."""
    prompts, queries, answers = asked(facts)
    prepared = model.answers(prompts, answers)
    counted = [[token for token in row if token != -100] for row in facts["labels"]]
    assert prepared.counted.sum(1).tolist() == facts["counted_tokens"] == list(map(len, counted))
    assert [ids[:n] for ids, n in zip(prepared.wanted.tolist(), facts["counted_tokens"], strict=True)] == counted
    leaf = queries.clone().requires_grad_()
    nll = prepared(leaf, torch.arange(len(leaf))).nll
    assert torch.allclose(nll, torch.tensor(facts["loss"]), atol=LOSS)
    if (wanted := tensors().get(f"{variant}/{prompt}/grad")) is not None:
        assert relative(torch.autograd.grad(nll.sum(), leaf)[0], wanted[:, -1, 0]) < GRADIENT


@pytest.mark.parametrize(
    ("rule", "version"), [(NewTokens(), "tokens_transformers5"), (WithPaddedPrompt(), "tokens")], ids=["today", "2023"]
)
def test_generations_are_the_originals(model, facts, rule, version):
    prompts, queries, _ = asked(facts)
    for wanted in facts["generate"]:
        decoding = Decoding(wanted["num_beams"], wanted["length_penalty"], rule)
        found = model.generate_ids(queries, prompts, max_new_tokens=wanted["max_new_tokens"], decoding=decoding).ids
        assert found == [_ended(ids, model.vocabulary.end) for ids in wanted[version]]
        assert version != "tokens" or [model.vocabulary.decode(ids) for ids in found] == wanted["text"]


def _ended(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def test_the_two_length_rules_differ_where_the_fixture_says(tmp_path):
    """The published captions divide by the prompt's length as well, and go on for longer."""
    facts = expected()["variants"]["mpt-every4"]["prompts"]["batch"]
    prompts, queries, _ = asked(facts)
    model = load("mpt-every4", tmp_path)
    found = {
        rule: model.generate_ids(queries, prompts, max_new_tokens=10, decoding=Decoding(3, -2.0, rule)).ids
        for rule in (NewTokens(), WithPrompt(), WithPaddedPrompt())
    }
    assert [len(ids) for ids in found[NewTokens()]] == [10, 7]
    assert [len(ids) for ids in found[WithPrompt()]] == [10, 10]
    assert found[WithPrompt()] == found[WithPaddedPrompt()]
