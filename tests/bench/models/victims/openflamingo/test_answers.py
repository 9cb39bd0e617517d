"""Losses of answers: batches, what is computed once, what greedy decoding would say, and refusals."""

import pytest
import torch

from bench.errors import UsageError
from bench.models.victims.openflamingo import answers
from bench.models.victims.openflamingo.language import layers
from bench.models.victims.openflamingo.prompts import Prompt
from tests.bench.models.victims.openflamingo.released import images, random_model

KINDS = ["neox", "mpt", "mpt1b"]
CONTEXT = "Output:two cats lying on a red couch.<|endofchunk|>Output:a sink.<|endofchunk|>"
ANSWERS = ["a man riding a wave.", "2", "black cat", "surfboard"]


def prompts() -> list[Prompt]:
    """Two text-only demonstrations, other ones, none at all, and one with its image."""
    shown = images()[2]
    return [
        Prompt(CONTEXT + "<image>Output:"),
        Prompt("Question:Is it? Short answer:yes<|endofchunk|><image>Question:How many? Short answer:"),
        Prompt("<image>Question:What is: it? Short answer:"),
        Prompt("<image>Question:Who? Short answer:man<|endofchunk|><image>Question:What? Short answer:", (shown,)),
    ]


def queries() -> torch.Tensor:
    return images()[[0, 1, 0, 1]]


def scored(prepared, pixels, rows):
    leaf = pixels.clone().requires_grad_()
    scores = prepared(leaf, rows)
    (gradient,) = torch.autograd.grad(scores.nll.sum(), leaf)
    return scores, gradient


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max())


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return random_model(request.param)


def test_a_batch_of_four_is_four_batches_of_one(model):
    together, gradient = scored(model.answers(prompts(), ANSWERS), queries(), torch.arange(4))
    for row in range(4):
        single = model.answers([prompts()[row]], [ANSWERS[row]])
        alone, own = scored(single, queries()[[row]], torch.tensor([0]))
        assert close(alone.nll, together.nll[[row]])
        assert close(own[0], gradient[row])
        assert (alone.greedy, alone.first) == (together.greedy[row], together.first[row])


def test_rows_name_the_prepared_answers(model):
    prepared = model.answers(prompts(), ANSWERS)
    whole = prepared(queries(), torch.arange(4)).nll
    rows = torch.tensor([3, 0, 3])
    assert close(prepared(queries()[rows], rows).nll, whole[rows])


def test_what_precedes_the_image_is_computed_once(model, monkeypatch):
    """The same losses and gradients as when everything is computed in each step, from fewer tokens."""
    counted: list[int] = []
    stack = layers(model.lang_encoder, model.family)
    handle = stack[0].register_forward_pre_hook(lambda module, inputs: counted.append(inputs[0].shape[1]))
    kept = model.answers(prompts(), ANSWERS)
    with_cache = [scored(kept, queries(), torch.arange(4)) for _ in range(3)]
    cached, counted[:] = list(counted), []
    monkeypatch.setattr(answers, "SHORTEST", 10**6)
    plain = model.answers(prompts(), ANSWERS)
    without, gradient = scored(plain, queries(), torch.arange(4))
    handle.remove()
    for scores, own in with_cache:
        assert close(scores.nll, without.nll)
        assert close(own, gradient)
        assert torch.equal(scores.first, without.first)
    assert plain.kept.tolist() == [0] * 4
    ids = [model.vocabulary.encode(prompt.text) for prompt in prompts()]
    last = [max(i for i, token in enumerate(row) if token == model.vocabulary.image) for row in ids]
    assert kept.kept.tolist() == last
    assert (kept.kept + kept.computed).tolist() == plain.computed.tolist()
    # the prefix once, then three steps of what follows it; without a cache all of it in each step
    assert cached == [max(last), *[int(kept.computed.max())] * 3]
    assert counted == [int(plain.computed.max())]
    assert sum(cached[1:]) < 0.7 * 3 * sum(counted)


def test_no_gradient_is_lost_with_the_prefix(model):
    """The prefix holds a demonstration's image; the image that is asked about reaches every token after it."""
    _, gradient = scored(model.answers(prompts()[3:], ANSWERS[3:]), queries()[3:], torch.tensor([0]))
    ids = torch.tensor([model.vocabulary.encode(prompts()[3].text + ANSWERS[3])])
    leaf = torch.stack([images()[2], queries()[3]])[None].requires_grad_()
    logits = model.logits(leaf, ids, torch.ones_like(ids)).log_softmax(-1)
    count = len(model.vocabulary.encode(ANSWERS[3]))
    nll = -logits[0, -count - 1 : -1].gather(1, ids[0, -count:, None]).sum()
    assert close(gradient[0], torch.autograd.grad(nll, leaf)[0][0, 1])


def test_the_loss_is_a_sum_over_the_answers_tokens(model):
    """Twice the text, about twice the loss; the end token adds nothing."""
    prompt, answer = prompts()[0], "a wave"
    ids = model.vocabulary.encode(prompt.text + answer)
    count = len(model.vocabulary.encode(answer))
    logits = model.logits(queries()[:1, None], torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    each = -logits[0].log_softmax(-1)[range(len(ids) - count - 1, len(ids) - 1), ids[-count:]]
    found = model.answers([prompt], [answer])(queries()[:1], torch.tensor([0])).nll
    assert count > 2
    assert close(found, each.sum()[None])


def test_greedy_and_first_are_what_greedy_decoding_says(model):
    said = model.generate_ids(queries(), prompts(), max_new_tokens=4).ids
    assert all(said)
    texts = [model.vocabulary.decode(ids) for ids in said]
    exact = [row for row, ids in enumerate(said) if model.vocabulary.encode(texts[row]) == ids]
    assert len(exact) >= 2
    prepared = model.answers([prompts()[r] for r in exact], [texts[r] for r in exact])
    scores = prepared(queries()[exact], torch.arange(len(exact)))
    assert scores.greedy.all()
    assert scores.first.tolist() == [said[r][0] for r in exact]
    others = model.answers(prompts(), ["Z" + text for text in texts])(queries(), torch.arange(4))
    assert others.first.tolist() == [ids[0] for ids in said]
    assert not others.greedy.any()


def test_an_answer_keeps_apart_from_the_colon_before_it():
    """A vocabulary may join a colon with the mark after it, as GPT-NeoX's does with ":)"."""
    model = random_model("neox")
    state = model.vocabulary.tokenizer
    prepared = model.answers([prompts()[2]], [": a"])
    ids = model.vocabulary.encode(prompts()[2].text)
    assert prepared.wanted[0].tolist() == state.encode(": a").ids
    assert prepared.ids[0, : len(ids)].tolist() == ids
    assert ids[-1] == state.token_to_id(":")


@pytest.mark.parametrize(
    ("answer", "said"),
    [("", "has no tokens"), ("a <image>", "holds <image>"), ("a<|endofchunk|>", "holds <.endof")],
)
def test_answers_that_cannot_be_scored_are_refused(answer, said):
    with pytest.raises(UsageError, match=said):
        random_model("neox").answers(prompts()[:1], [answer])


def test_texts_longer_than_the_models_positions_are_refused():
    model = random_model("mpt")  # 256 positions
    with pytest.raises(UsageError, match="take up to 303 tokens, the limit is 256"):
        model.answers([Prompt("<image>" + "Z" * 300)], ["ZZ"])
    with pytest.raises(UsageError, match="take up to 261 tokens, the limit is 256"):
        model.generate(queries()[:1], [Prompt("<image>" + "Z" * 250)], max_new_tokens=10)
    model.answers([Prompt("<image>" + "Z" * 253)], ["ZZ"])
