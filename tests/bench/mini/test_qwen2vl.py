"""The recipe of the miniature Qwen2-VL."""

import pytest
import torch

from bench.mini import qwen2vl, world
from bench.models.victims.any_model.load import load_any_model

ASKED = [("what color is the circle ?", "red"), ("describe the image", "a red circle and a blue bar")]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = qwen2vl.new_model()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
        parameter.data = parameter.data.half().float()  # as it is stored
    return made.train(False)


@pytest.fixture(scope="module")
def victim(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2vl")
    qwen2vl.export(model, folder)
    return load_any_model(str(folder), None)


def scenes(count):
    return world.draw_scenes("train", count, stream=qwen2vl.STREAM)


@torch.no_grad()
@pytest.mark.parametrize("grid", qwen2vl.SIZES)
def test_a_packed_sequence_has_the_loss_that_the_victim_gives_each_answer_alone(model, victim, grid):
    images = torch.from_numpy(world.render(scenes(2))).permute(0, 3, 1, 2)
    images = qwen2vl.resized(images, grid)
    given = qwen2vl.image_processor()(images=list(images), return_tensors="pt")
    assert given["image_grid_thw"].tolist() == [[1, 2 * grid[0], 2 * grid[1]]] * 2
    tokens = torch.cat(model.get_image_features(**given).pooler_output)
    talk = [qwen2vl.turn_tokens(*asked) for asked in ASKED]
    packed = qwen2vl.conversation_loss(model, tokens, [talk, talk[:1]], grid)

    asked = [*ASKED, ASKED[0]]
    alone = victim.answers(*zip(*asked, strict=True))(images[[0, 0, 1]] / 255, torch.arange(3)).nll
    lengths = torch.tensor([len(reply.split()) + 1 for _, reply in asked])
    torch.testing.assert_close(packed, (alone * lengths).sum() / lengths.sum(), rtol=1e-4, atol=1e-4)


def test_contents_name_what_the_scenes_say():
    drawn = scenes(64)
    found = qwen2vl.contents(drawn)
    for index in range(len(drawn)):
        objects = {3 * o.row + o.column: o for o in drawn.objects(index)}
        for cell, (shape, colour) in enumerate(found[index].tolist()):
            said = [world.SHAPES[shape] if shape < qwen2vl.NOTHING else None]
            said += [list(world.COLOURS)[colour] if colour < qwen2vl.NOTHING else None]
            o = objects.get(cell)
            sketch = world.STYLES[drawn.style[index]] == "sketch"
            assert said == ([None, None] if o is None else [o.shape, None if sketch else o.colour])
