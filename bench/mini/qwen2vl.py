"""The recipe of the miniature Qwen2-VL: tower, merger and language model trained together from scratch.

Built with transformers' `Qwen2VLForConditionalGeneration` and saved in its own checkpoint format, for the family of any
model. Four patches of 8 pixels become one token, so that of an image in its own size a token is a cell of the world; a
linear head that names what lies in each cell is trained beside and left out of the checkpoint. Some steps show their
images larger, or stretched, so that the model reads images of several grids.
"""

import copy
import math
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from tqdm import tqdm
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from bench.mini import clip, language, packing, world
from bench.mini.tokenizer import qwen_tokenizer
from bench.train.loop import fit, step_generator
from bench.train.schedule import Schedule

SCHEDULE = Schedule(
    steps=1250, batch=64, learning_rate=1e-3, warmup=60, weight_decay=0.01, betas=(0.9, 0.98), clip_norm=1.0
)
IMAGES = 40_000  # two epochs
STREAM = 6
PATCH, MERGE = 8, 2
SIZES = {(3, 3): 5, (3, 4): 1, (4, 3): 1, (4, 4): 1}  # rows and columns of tokens that a step's images have: weights
OWN = (world.GRID, world.GRID)
WIDTH = 96
BEFORE = 3  # tokens before the image's
NOTHING = 10  # in a cell: no shape; no colour, or none that is said
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def new_model() -> Qwen2VLForConditionalGeneration:
    """The untrained miniature."""
    words, ids = qwen_tokenizer(), _ids()
    config = Qwen2VLConfig(
        vision_config={
            "depth": 4,
            "embed_dim": 128,
            "hidden_size": WIDTH,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        },
        text_config={
            "vocab_size": len(words),
            "hidden_size": WIDTH,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "max_position_embeddings": 512,
            "bos_token_id": None,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    return model


def image_processor() -> Qwen2VLImageProcessor:
    """Keeps an image of the world as it is, and brings others to 9 to 16 tokens."""
    side = PATCH * MERGE
    return Qwen2VLImageProcessor(
        size={"shortest_edge": world.IMAGE_SIZE**2, "longest_edge": max(SIZES)[0] * max(SIZES)[1] * side**2},
        patch_size=PATCH,
        merge_size=MERGE,
        image_mean=list(clip.MEAN),
        image_std=list(clip.STD),
    )


def train(
    directory: Path, *, seed: int = 0, schedule: Schedule = SCHEDULE, images: int = IMAGES
) -> Qwen2VLForConditionalGeneration:
    """Train everything on captions, questions and the names of what lies in each cell."""
    torch.manual_seed(seed)
    pixels, cells, talks = _scenes(images, seed)
    model, head, prepare = new_model(), nn.Linear(WIDTH, 2 * (NOTHING + 1)), image_processor()
    per_epoch = images // schedule.batch

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(images, generator=step_generator(seed, -1 - epoch))
        rows = order[position * schedule.batch : (position + 1) * schedule.batch]
        grid = random.Random(f"{seed} {step}").choices(tuple(SIZES), tuple(SIZES.values()))[0]
        given = prepare(images=list(resized(pixels[rows], grid)), return_tensors="pt")
        tokens = torch.cat(model.get_image_features(**given).pooler_output)
        said = conversation_loss(model, tokens, [talks[row] for row in rows.tolist()], grid)
        if grid != OWN:
            return said, {"said": said.item()}
        named = cell_loss(head(tokens), cells[rows])
        return said + named, {"said": said.item(), "named": named.item()}

    settings = {"seed": seed, "images": images, "world": world.WORLD_VERSION, "contrast": world.CONTRAST}
    fit("qwen2vl", {"model": model, "head": head}, loss_of_step, schedule, directory, settings=settings)
    model.train(False)
    return model


Talk = list[tuple[list[int], list[int]]]  # of each conversation: tokens up to the answer; the answer's, and the end


def _scenes(count: int, seed: int) -> tuple[Tensor, Tensor, list[Talk]]:
    """Images (N, 3, 48, 48) uint8, what lies in their cells (N, 9, 2), and the conversations about each."""
    rng = random.Random(seed)
    pixels, cells, talks = [], [], []
    for start in tqdm(range(0, count, world.BLOCK), desc="scenes", mininterval=5, disable=None):
        scenes = world.draw_scenes("train", min(world.BLOCK, count - start), start=start, stream=STREAM)
        pixels.append(torch.from_numpy(world.render(scenes)).permute(0, 3, 1, 2))
        cells.append(contents(scenes))
        talks += [_talk(scenes, index, rng) for index in range(len(scenes))]
    return torch.cat(pixels), torch.cat(cells), talks


@cache
def _ids() -> dict[str, int]:
    return dict(qwen_tokenizer().get_vocab())


def _talk(scenes: world.Scenes, index: int, rng: random.Random) -> Talk:
    turns = [(q.text, rng.choice(q.answers)) for q in language.questions(scenes, index, rng)]
    turns.append((language.CAPTION_PROMPT, language.plain_caption(scenes, index)))
    return [turn_tokens(*turn) for turn in turns]


def turn_tokens(question: str, reply: str) -> tuple[list[int], list[int]]:
    """What follows the image: up to the answer, and the answer with its end."""
    asked = [*question.split(), "<|im_end|>", "<|im_start|>", "assistant"]
    ids = _ids()
    return [ids[word] for word in asked], [ids[word] for word in (*reply.split(), "<|im_end|>")]


def resized(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images (B, 3, 48, 48) uint8 at the size that makes ``grid`` tokens."""
    if grid == OWN:
        return images
    size = [PATCH * MERGE * side for side in grid]
    return interpolate(images.float(), size, mode="bicubic").round().clamp(0, 255).to(torch.uint8)


def contents(scenes: world.Scenes) -> Tensor:
    """(N, 9, 2): shape and colour in each cell, `NOTHING` where there is none; a sketch has no colours."""
    found = np.full((len(scenes), world.GRID**2, 2), NOTHING)
    for slot in range(world.MAX_OBJECTS):
        used = np.flatnonzero(scenes.count > slot)
        cell = scenes.cell[used, slot]
        found[used, cell, 0] = scenes.shape[used, slot]
        sketch = scenes.style[used] == world.STYLES.index("sketch")
        found[used, cell, 1] = np.where(sketch, NOTHING, scenes.colour[used, slot])
    return torch.from_numpy(found)


def cell_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Mean cross-entropy of naming shapes and colours; logits (B * 9, 22), cells (B, 9, 2)."""
    shapes, colours = logits.float().chunk(2, -1)
    return cross_entropy(shapes, cells[..., 0].flatten()) + cross_entropy(colours, cells[..., 1].flatten())


def conversation_loss(
    model: Qwen2VLForConditionalGeneration, image_tokens: Tensor, talks: Sequence[Talk], grid: tuple[int, int]
) -> Tensor:
    """Mean cross-entropy over the answers' tokens of all conversations about B images.

    Args:
        model: in training.
        image_tokens: (B * rows * columns, W).
        talks: about each image.
        grid: rows and columns of tokens that an image has.
    """
    ids, turns, answers = packing.collate([_packed(talk, grid) for talk in talks])
    language_model = model.model.language_model
    embedded = language_model.embed_tokens(ids)
    embedded = embedded.masked_scatter((ids == model.config.image_token_id)[..., None], image_tokens)
    bias = packing.as_bias(packing.visible(turns), embedded.dtype)
    hidden = language_model(
        inputs_embeds=embedded, attention_mask=bias, position_ids=positions(turns, grid), use_cache=False
    ).last_hidden_state
    wanted = answers[:, 1:].bool()
    return cross_entropy(model.lm_head(hidden[:, :-1][wanted]), ids[:, 1:][wanted])


def _packed(talk: Talk, grid: tuple[int, int]) -> packing.Sequence:
    image = ["<|image_pad|>"] * math.prod(grid)
    tokens = [_ids()[word] for word in ("<|im_start|>", "user", "<|vision_start|>", *image, "<|vision_end|>")]
    turn_of, answer = [0] * len(tokens), [0] * len(tokens)
    for number, (asked, said) in enumerate(talk, start=1):
        tokens += asked + said
        turn_of += [number] * (len(asked) + len(said))
        answer += [0] * len(asked) + [1] * len(said)
    return tokens, turn_of, answer


def positions(turns: Tensor, grid: tuple[int, int]) -> Tensor:
    """(3, B, T): of time, row and column, as Qwen2-VL counts them when each conversation is asked alone."""
    rows, columns = grid
    image = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.arange(rows), torch.arange(columns)).T
    behind = BEFORE + max(grid)
    shared = torch.cat([torch.arange(BEFORE).expand(3, -1), BEFORE + image, torch.full((3, 1), behind)], 1)
    asked = (behind + 1 + packing.offsets(turns))[:, shared.shape[1] :]
    return torch.cat([shared[:, None].expand(-1, len(turns), -1), asked.expand(3, -1, -1)], 2)


def export(model: Qwen2VLForConditionalGeneration, directory: Path) -> None:
    """Write a transformers checkpoint folder: configuration, half-precision weights, tokenizer, processor."""
    processor = Qwen2VLProcessor(
        image_processor(), qwen_tokenizer(), Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE
    )  # type: ignore[no-untyped-call]
    processor.save_pretrained(directory)
    copy.deepcopy(model).half().save_pretrained(directory)  # type: ignore[no-untyped-call]
