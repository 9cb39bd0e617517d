"""The recipe of the miniature Qwen2-VL."""

import random

import pytest
import torch

from bench.mini import language, packing, qwen2vl, world
from bench.mini.tokenizer import qwen_tokenizer
from bench.models.victims.any_model.load import load_any_model

QUESTIONS = [("what color is the circle ?", "red"), ("describe the image", "a red circle and a blue bar")]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = qwen2vl.new_model()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return made.train(False)


def _packed(turns):
    ids = qwen_tokenizer().get_vocab()
    tokens = qwen2vl.shared_tokens(ids)
    turn_of, answer = [0] * len(tokens), [0] * len(tokens)
    for number, (question, reply) in enumerate(turns, start=1):
        asked, said = qwen2vl.turn_tokens(ids, question, reply)
        tokens, turn_of = tokens + asked + said, turn_of + [number] * len(asked + said)
        answer += [0] * len(asked) + [1] * len(said)
    return packing.collate([(tokens, turn_of, answer)])


def test_a_packed_sequence_has_the_loss_that_the_victim_gives_each_answer_alone(model, tmp_path):
    images = torch.from_numpy(world.render(world.draw_scenes("train", 1, stream=qwen2vl.STREAM))).permute(0, 3, 1, 2)
    with torch.no_grad():
        tokens = torch.cat(
            model.get_image_features(**qwen2vl.image_processor()(images=list(images), return_tensors="pt")).pooler_output
        )
        packed = float(qwen2vl.conversation_loss(model, tokens, *_packed(QUESTIONS)))
    model.save_pretrained(tmp_path)
    qwen2vl.export(model, tmp_path)
    victim = load_any_model(str(tmp_path), None)
    alone = victim.answers(*zip(*QUESTIONS, strict=True))((images / 255).expand(2, -1, -1, -1), torch.arange(2)).nll
    lengths = torch.tensor([len(reply.split()) + 1 for _, reply in QUESTIONS])
    assert packed == pytest.approx(float((alone * lengths).sum() / lengths.sum()), rel=5e-3)  # stored in half precision
