"""The recipe of the miniature Qwen2-VL: tower, merger and language model trained together from scratch.

Built with transformers' `Qwen2VLForConditionalGeneration` and saved in its own checkpoint format, for the family of any
model. Four patches of 8 pixels become one token, so a token is a cell of the world. A linear head that names what lies
in each cell is trained beside and left out of the checkpoint: without it the tower learns no shapes in this time.
"""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerFast,
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
    steps=1800, batch=80, learning_rate=2e-3, warmup=100, weight_decay=0.01, betas=(0.9, 0.98), clip_norm=1.0
)
IMAGES = 72_000  # two epochs
STREAM = 6
PATCH, MERGE = 8, 2
TOKENS = world.GRID**2
WIDTH = 96
NOTHING = 10  # in a cell: no shape; no colour, or none that is said
CELL_WEIGHT = 1.0  # of the loss of naming cells
MARKS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def new_model() -> Qwen2VLForConditionalGeneration:
    """The untrained miniature."""
    words = qwen_tokenizer()
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
        **{name: words.convert_tokens_to_ids(mark) for name, mark in MARKS.items()},
    )
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    return model


def image_processor() -> Qwen2VLImageProcessor:
    """Brings an image of any shape to at most nine tokens."""
    pixels = world.IMAGE_SIZE**2
    return Qwen2VLImageProcessor(
        size={"shortest_edge": pixels, "longest_edge": pixels},
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
    pixels, cells, sequences = _scenes(images, seed)
    model, head, prepare = new_model(), nn.Linear(WIDTH, 2 * (NOTHING + 1)), image_processor()
    per_epoch = images // schedule.batch

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(images, generator=step_generator(seed, -1 - epoch))
        rows = order[position * schedule.batch : (position + 1) * schedule.batch]
        given = prepare(images=list(pixels[rows]), return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = torch.cat(model.get_image_features(**given).pooler_output)
            said = conversation_loss(model, tokens, *packing.collate([sequences[row] for row in rows.tolist()]))
            named = cell_loss(head(tokens), cells[rows])
        return said + CELL_WEIGHT * named, {"said": said.item(), "named": named.item()}

    settings = {"seed": seed, "images": images, "world": world.WORLD_VERSION, "contrast": world.CONTRAST}
    fit("qwen2vl", {"model": model, "head": head}, loss_of_step, schedule, directory, settings=settings)
    model.train(False)
    return model


def _scenes(count: int, seed: int) -> tuple[Tensor, Tensor, list[packing.Sequence]]:
    """Images (N, 3, 48, 48) uint8, what lies in their cells (N, 9, 2), and the conversations about each."""
    rng, ids = random.Random(seed), qwen_tokenizer().get_vocab()
    pixels, cells, sequences = [], [], []
    for start in tqdm(range(0, count, world.BLOCK), desc="scenes", mininterval=5, disable=None):
        scenes = world.draw_scenes("train", min(world.BLOCK, count - start), start=start, stream=STREAM)
        pixels.append(torch.from_numpy(world.render(scenes)).permute(0, 3, 1, 2))
        cells.append(contents(scenes))
        sequences += [_sequence(scenes, index, rng, ids) for index in range(len(scenes))]
    return torch.cat(pixels), torch.cat(cells), sequences


def contents(scenes: world.Scenes) -> Tensor:
    """(N, 9, 2): shape and colour in each cell, `NOTHING` where there is none; a sketch has no colours."""
    found = np.full((len(scenes), TOKENS, 2), NOTHING)
    for slot in range(world.MAX_OBJECTS):
        used = np.flatnonzero(scenes.count > slot)
        cell = scenes.cell[used, slot]
        found[used, cell, 0] = scenes.shape[used, slot]
        sketch = scenes.style[used] == world.STYLES.index("sketch")
        found[used, cell, 1] = np.where(sketch, NOTHING, scenes.colour[used, slot])
    return torch.from_numpy(found)


def _sequence(scenes: world.Scenes, index: int, rng: random.Random, ids: dict[str, int]) -> packing.Sequence:
    turns = [(q.text, rng.choice(q.answers)) for q in language.questions(scenes, index, rng)]
    turns.append((language.CAPTION_PROMPT, language.plain_caption(scenes, index)))
    tokens = shared_tokens(ids)
    turn_of, answer = [0] * len(tokens), [0] * len(tokens)
    for number, (question, reply) in enumerate(turns, start=1):
        asked, said = turn_tokens(ids, question, reply)
        tokens += asked + said
        turn_of += [number] * (len(asked) + len(said))
        answer += [0] * len(asked) + [1] * len(said)
    return tokens, turn_of, answer


def shared_tokens(ids: dict[str, int]) -> list[int]:
    """What stands before a question."""
    image = ["<|image_pad|>"] * TOKENS
    return [ids[word] for word in ("<|im_start|>", "user", "<|vision_start|>", *image, "<|vision_end|>")]


def turn_tokens(ids: dict[str, int], question: str, reply: str) -> tuple[list[int], list[int]]:
    """What follows the image: up to the answer, and the answer with its end."""
    asked = [*question.split(), "<|im_end|>", "<|im_start|>", "assistant"]
    return [ids[word] for word in asked], [ids[word] for word in (*reply.split(), "<|im_end|>")]


def cell_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Mean cross-entropy of naming shapes and colours; logits (B * 9, 22), cells (B, 9, 2)."""
    shapes, colours = logits.float().chunk(2, -1)
    return cross_entropy(shapes, cells[..., 0].flatten()) + cross_entropy(colours, cells[..., 1].flatten())


def conversation_loss(
    model: Qwen2VLForConditionalGeneration, image_tokens: Tensor, ids: Tensor, turns: Tensor, answers: Tensor
) -> Tensor:
    """Mean cross-entropy over the answers' tokens of a batch of packed conversations; image_tokens (B * 9, W)."""
    language_model = model.model.language_model
    embedded = language_model.embed_tokens(ids)
    embedded = embedded.masked_scatter((ids == model.config.image_token_id)[..., None], image_tokens.to(embedded.dtype))
    bias = packing.as_bias(packing.visible(turns), embedded.dtype)
    hidden = language_model(
        inputs_embeds=embedded, attention_mask=bias, position_ids=positions(turns), use_cache=False
    ).last_hidden_state
    wanted = answers[:, 1:].bool()
    return cross_entropy(model.lm_head(hidden[:, :-1][wanted]).float(), ids[:, 1:][wanted])


def positions(turns: Tensor) -> Tensor:
    """(3, B, T): of time, row and column, as Qwen2-VL counts them when each conversation is asked alone."""
    before = 3  # tokens before the image's
    image = torch.cartesian_prod(torch.arange(1), torch.arange(world.GRID), torch.arange(world.GRID)).T + before
    behind = before + world.GRID
    shared = torch.cat([torch.arange(before).expand(3, -1), image, torch.full((3, 1), behind)], 1)
    asked = (behind + 1 + packing.offsets(turns))[:, shared.shape[1] :]
    return torch.cat([shared[:, None].expand(-1, len(turns), -1), asked.expand(3, -1, -1)], 2)


def export(model: Qwen2VLForConditionalGeneration, directory: Path) -> None:
    """Write a transformers checkpoint folder: configuration, half-precision weights, tokenizer, processor."""
    words: PreTrainedTokenizerFast = qwen_tokenizer()
    processor = Qwen2VLProcessor(image_processor(), words, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)  # type: ignore[no-untyped-call]
    processor.save_pretrained(directory)
    model.half().save_pretrained(directory)  # type: ignore[no-untyped-call]
