"""Greedy decoding and beam search: against transformers' own, in closed form, in batches, and what is never said."""

import math

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from bench.models.victims.openflamingo.generation import (
    Decoding,
    NewTokens,
    WithPaddedPrompt,
    WithPrompt,
    beam_search,
    greedy,
)
from bench.models.victims.openflamingo.prompts import Prompt
from bench.models.victims.openflamingo.reading import sight
from tasks.base import NOT_FINITE
from tests.bench.models.victims.openflamingo.released import images, random_model

END, VOCABULARY = 3, 11
GOES_ON = (0.97, 0.01, 0.01, 0.01)  # of three tokens and the end


class Whole:
    """Speaks a causal language model without any cache: the whole text again for each token."""

    def __init__(self, model, ids):
        self.model, self.ids = model, ids

    def _next(self):
        with torch.no_grad():
            return self.model(self.ids).logits[:, -1].log_softmax(-1)

    def start(self, beams):
        found = self._next()
        self.ids = self.ids.repeat_interleave(beams, dim=0)
        return found

    def follow(self, tokens, parents):
        self.ids = torch.cat([self.ids[parents], tokens[:, None]], dim=1)
        return self._next()


class Table:
    """Speaks from a table: the probabilities after each text, its tokens joined behind what it starts with."""

    def __init__(self, rows, starts=("",)):
        self.rows, self.said = rows, list(starts)

    def start(self, beams):
        found = self._next()
        self.said = [said for said in self.said for _ in range(beams)]
        return found

    def follow(self, tokens, parents):
        self.said = [self.said[p] + str(t) for t, p in zip(tokens.tolist(), parents.tolist(), strict=True)]
        return self._next()

    def _next(self):
        return torch.tensor([[math.log(p) for p in self.rows.get(said, GOES_ON)] for said in self.said])


def language(seed: int) -> GPTNeoXForCausalLM:
    """Small, with opinions, and inclined to stop."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        bos_token_id=0,
        eos_token_id=END,
        pad_token_id=0,
    )
    model = GPTNeoXForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    with torch.no_grad():
        model.lm_head.weight[END] += 0.8 * model.lm_head.weight[5]
    return model


@pytest.mark.parametrize("penalty", [-2.0, -0.5, 0.0, 1.0, 2.0])
def test_beam_search_is_todays_transformers(penalty):
    ended = 0
    for seed in range(12):
        model, ids = language(seed), torch.randint(4, VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(seed))
        wanted = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=3,
            max_new_tokens=8,
            do_sample=False,
            length_penalty=penalty,
            early_stopping=False,
            eos_token_id=END,
            pad_token_id=END,
        )[:, 5:].tolist()
        found = beam_search(Whole(model, ids), [5] * 3, END, 8, Decoding(3, penalty)).ids
        assert found == [row[: row.index(END)] if END in row else row for row in wanted]
        ended += sum(len(row) < 8 for row in found)
    assert 0 < ended < 36


def test_greedy_decoding_is_transformers():
    for seed in range(12):
        model, ids = language(seed), torch.randint(4, VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(seed))
        wanted = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=END,
        )[:, 5:].tolist()
        found = greedy(Whole(model, ids), END, 8).ids
        assert found == [row[: row.index(END)] if END in row else row for row in wanted]


def test_each_rule_divides_by_its_own_length():
    """In closed form: an answer of one token against one of three that is likelier.

    Sums of log-probabilities: "0" then the end: s; "1", "2", "0" then the end: t > s. With the power -2 the sum is
    multiplied by the square of the length.
    """
    rows = {
        "": (0.40, 0.58, 0.01, 0.01),
        "0": (0.01, 0.01, 0.01, 0.97),
        "1": (0.005, 0.005, 0.98, 0.01),
        "12": (0.98, 0.005, 0.005, 0.01),
        "120": (0.005, 0.005, 0.01, 0.98),
    }
    short, long = math.log(0.40 * 0.97), math.log(0.58 * 0.98**3)
    assert short * 2**2 > long * 4**2  # new tokens and the end token
    assert short * 3**2 > long * 5**2  # a prompt of 2, no end token
    assert short * 51**2 < long * 53**2  # a prompt of 50
    for rule, prompt, wanted in (
        (NewTokens(), 2, [0]),
        (NewTokens(), 50, [0]),
        (WithPrompt(), 2, [0]),
        (WithPrompt(), 50, [1, 2, 0]),
    ):
        assert beam_search(Table(rows), [prompt], END, 6, Decoding(2, -2.0, rule)).ids == [wanted]
    assert beam_search(Table(rows), [2], END, 6, Decoding(2, 0.0)).ids == [[1, 2, 0]]


def test_an_end_outside_the_best_candidates_is_no_answer():
    """Ending at once is third of four; with the power -2 it would win over all that is longer."""
    rows = {"": (0.40, 0.35, 0.02, 0.23), "0": (0.01, 0.01, 0.01, 0.97)}
    assert math.log(0.23) > math.log(0.40 * 0.97) * 2**2
    assert beam_search(Table(rows), [1], END, 6, Decoding(2, -2.0)).ids == [[0]]
    assert beam_search(Table(rows), [1], END, 6, Decoding(4, -2.0)).ids == [[]]


def test_a_row_stops_once_nothing_that_goes_on_is_better():
    """With the power 2 the longest answer would win in the end; the stop test looks one token ahead only."""
    rows = {"": (0.38, 0.01, 0.01, 0.60), "x": (0.97, 0.01, 0.01, 0.01)}
    assert math.log(0.60) < math.log(0.38 * 0.97**5) / 6**2
    alone = beam_search(Table(rows), [1], END, 6, Decoding(1, 2.0))
    beside = beam_search(Table(rows, ("", "x")), [1, 1], END, 6, Decoding(1, 2.0))  # which goes on to the limit
    assert alone.ids == [[]]
    assert beside.ids == [[], [0] * 6]


def test_the_stop_test_asks_what_each_version_asks():
    """Today's the best beam that goes on; in 2023 the best candidate, though it had just ended."""
    rows = {"": (0.45, 0.05, 1e-9, 0.50), "0": (0.05, 0.05, 1e-9, 0.90), "1": (0.90, 0.01, 0.08, 0.01)}
    worst, ended, open_best = math.log(0.50), math.log(0.45 * 0.90), math.log(0.05 * 0.90)
    assert open_best / 2**2 < worst < ended / 2**2
    assert beam_search(Table(rows), [1], END, 6, Decoding(2, 2.0)).ids == [[0]]
    assert beam_search(Table(rows), [1], END, 6, Decoding(2, 2.0, WithPrompt())).ids == [[1, 0, 0, 0, 0, 0]]
    assert [rule.hope(-1.0, -2.0) for rule in (NewTokens(), WithPrompt(), WithPaddedPrompt())] == [-2.0, -1.0, -1.0]


def test_padding_counts_only_where_the_rule_says():
    assert [rule.prompt(2, 50) for rule in (NewTokens(), WithPrompt(), WithPaddedPrompt())] == [0, 2, 50]
    assert [rule.end for rule in (NewTokens(), WithPrompt(), WithPaddedPrompt())] == [1, 0, 0]


PROMPTS = [
    Prompt("Output:two cats lying on a red couch.<|endofchunk|><image>Output:"),
    Prompt("<image>Question:What? Short answer:"),
    Prompt("<image>Output:"),
]


class Uncached(Whole):
    """The network itself, the whole text again for each token."""

    def __init__(self, network, ids, shown):
        self.network, self.ids, self.shown = network, ids, shown

    def _next(self):
        with torch.no_grad():
            found = self.network.logits(self.shown, self.ids, torch.ones_like(self.ids))[:, -1].log_softmax(-1)
        found[:, self.network.vocabulary.image] = -torch.inf
        return found

    def start(self, beams):
        found = super().start(beams)
        self.shown = self.shown.repeat_interleave(beams, dim=0)
        return found


@pytest.mark.parametrize("kind", ["neox", "mpt", "mpt1b"])
@pytest.mark.parametrize("beams", [1, 3])
def test_beams_continue_their_own_keys_and_values(kind, beams):
    for seed in range(4):
        model = random_model(kind, seed=seed)
        end, ids = model.vocabulary.end, torch.tensor([model.vocabulary.encode(PROMPTS[0].text)])
        plain = Uncached(model, ids, images()[:1, None])
        decoding = Decoding(beams, -1.0)
        wanted = greedy(plain, end, 8) if beams == 1 else beam_search(plain, [ids.shape[1]], end, 8, decoding)
        assert model.generate_ids(images()[:1], PROMPTS[:1], max_new_tokens=8, decoding=decoding).ids == wanted.ids


@pytest.mark.parametrize("kind", ["neox", "mpt", "mpt1b"])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(3, -2.0), Decoding(3, -2.0, WithPrompt())])
def test_answers_do_not_depend_on_the_batch(kind, decoding):
    model = random_model(kind)
    together = model.generate_ids(images(), PROMPTS, max_new_tokens=6, decoding=decoding).ids
    for row, prompt in enumerate(PROMPTS):
        alone = model.generate_ids(images()[[row]], [prompt], max_new_tokens=6, decoding=decoding)
        assert alone.ids == [together[row]]


@pytest.mark.parametrize("beams", [1, 3])
def test_an_image_tag_is_never_said(beams):
    """The network would say nothing else; the original's mask has no meaning for it."""
    model = random_model("neox")
    with torch.no_grad():
        wanted = model.hidden(*_read(model))[0, -1]
        model.lang_encoder.lm_head.weight[model.vocabulary.image] = wanted * 100
    logits = model.head(model.hidden(*_read(model)))[0, -1]
    assert int(logits.argmax()) == model.vocabulary.image
    said = model.generate_ids(images()[:1], PROMPTS[2:], max_new_tokens=6, decoding=Decoding(beams))
    assert len(said.ids[0]) == 6
    assert model.vocabulary.image not in said.ids[0]
    assert said.finite.all()


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(3, -2.0), Decoding(3, 1.0, WithPrompt())])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_answer_behind_which_a_score_is_not_finite_is_an_error(decoding, value):
    """And the others in its batch are what they would be without it."""
    model = random_model("mpt")
    wanted = model.generate(images(), PROMPTS, max_new_tokens=6, decoding=decoding)
    head, rows = model.head, iter(range(100))

    def broken(hidden):
        found = head(hidden).clone()
        if next(rows) == 2:  # after two tokens, in the second row
            found[len(found) // 3 : 2 * len(found) // 3, 7] = value
        return found

    model.head = broken
    found = model.generate(images(), PROMPTS, max_new_tokens=6, decoding=decoding)
    assert [answer.error for answer in found] == [None, NOT_FINITE, None]
    assert [found[0], found[2]] == [wanted[0], wanted[2]]


def _read(model):
    ids = torch.tensor([model.vocabulary.encode(PROMPTS[2].text)])
    return ids, torch.ones_like(ids), sight(model, PROMPTS[2:], images()[:1], ids)
