"""The recipe of the miniature LLaVA: a frozen CLIP tower, an MLP projector and a small Llama, trained together.

Built with transformers' `LlavaForConditionalGeneration` and saved in its own checkpoint format.
"""

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPImageProcessor, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from bench.mini import clip, language, packing, world
from bench.mini.tokenizer import IMAGE_TOKEN, llava_tokenizer
from bench.models.encoders.convert import to_clip_vision_model, vision_config
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.train.loop import fit, step_generator
from bench.train.schedule import Schedule

PROMPT = "USER : {image} {question} ASSISTANT :"
SCHEDULE = Schedule(
    steps=1500, batch=96, learning_rate=2e-3, warmup=60, weight_decay=0.01, betas=(0.9, 0.98), clip_norm=1.0
)
IMAGES = 72_000  # two epochs
PATCHES = world.GRID**2
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER : "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} "
    "{% endif %}{% endfor %}{% endif %}{% endfor %}ASSISTANT :"
)


def new_model(encoder: Encoder) -> LlavaForConditionalGeneration:
    """The untrained miniature: the encoder's tower in transformers' form, a fresh projector and language model."""
    tokenizer = llava_tokenizer()
    config = LlavaConfig(
        vision_config=vision_config(encoder.visual).to_dict(),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            max_position_embeddings=256,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ).to_dict(),
        image_token_index=tokenizer.get_vocab()[IMAGE_TOKEN],
        image_seq_length=PATCHES,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(to_clip_vision_model(encoder.visual).state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.train(False)
    return model


def train(
    encoder: Encoder, directory: Path, *, seed: int = 0, schedule: Schedule = SCHEDULE, images: int = IMAGES
) -> LlavaForConditionalGeneration:
    """Train projector and language model on captions and questions, the tower frozen.

    A sequence holds one image and several conversations about it, each of which sees the image and itself only
    (through positions and a block mask), just as when it is asked alone.
    """
    torch.manual_seed(seed)
    features, sequences = _conversations(encoder, images, seed)
    mean, std = features.float().mean((0, 1)), features.float().std((0, 1))
    model = new_model(encoder)
    model.model.vision_tower.requires_grad_(False)
    per_epoch = images // schedule.batch
    parts = {
        "projector": model.model.multi_modal_projector,
        "language": model.model.language_model,
        "head": model.lm_head,
    }

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(images, generator=step_generator(seed, -1 - epoch))
        rows = order[position * schedule.batch : (position + 1) * schedule.batch]
        batch = packing.collate([sequences[row] for row in rows.tolist()])
        tokens = parts["projector"]((features[rows].float() - mean) / std)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = conversation_loss(model, tokens, *batch)
        return loss, {}

    facts = {"world": world.WORLD_VERSION, "contrast": world.CONTRAST, "clip": digest(encoder.visual)[:16]}
    settings = {"seed": seed, "images": images, **facts}
    fit("llava", parts, loss_of_step, schedule, directory, settings=settings)
    _fold_standardisation(model.model.multi_modal_projector.linear_1, mean, std)
    model.train(False)
    return model


def _fold_standardisation(linear: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Make ``linear`` of raw features what it was of standardised ones."""
    with torch.no_grad():
        linear.weight /= std
        linear.bias.sub_(linear.weight @ mean)


def _conversations(encoder: Encoder, count: int, seed: int) -> tuple[Tensor, list[packing.Sequence]]:
    rng = random.Random(seed)
    ids = llava_tokenizer().get_vocab()
    features, sequences = [], []
    for start in tqdm(range(0, count, world.BLOCK), desc="scenes", mininterval=5, disable=None):
        scenes = world.draw_scenes("train", min(world.BLOCK, count - start), start=start, stream=1)
        pixels = torch.from_numpy(world.render(scenes)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            features.append(encoder.patch_tokens(pixels).half())
        sequences += [_sequence(scenes, index, rng, ids) for index in range(len(scenes))]
    return torch.cat(features), sequences


def _sequence(scenes: world.Scenes, index: int, rng: random.Random, ids: dict[str, int]) -> packing.Sequence:
    turns = [(q.text, rng.choice(q.answers)) for q in language.questions(scenes, index, rng)]
    turns.append((language.CAPTION_PROMPT, language.plain_caption(scenes, index)))
    head, tail = PROMPT.split("{image}")
    tokens = [ids["<s>"], *(ids[w] for w in head.split()), *[ids[IMAGE_TOKEN]] * PATCHES]
    turn_of, answer = [0] * len(tokens), [0] * len(tokens)
    for number, (question, reply) in enumerate(turns, start=1):
        asked = [ids[w] for w in tail.format(question=question).split()]
        said = [*(ids[w] for w in reply.split()), ids["</s>"]]
        tokens += asked + said
        turn_of += [number] * (len(asked) + len(said))
        answer += [0] * len(asked) + [1] * len(said)
    return tokens, turn_of, answer


def conversation_loss(
    model: LlavaForConditionalGeneration, image_tokens: Tensor, ids: Tensor, turns: Tensor, answers: Tensor
) -> Tensor:
    """Mean cross-entropy over the answers' tokens of a batch of packed conversations."""
    shared = turns == 0
    place = torch.arange(ids.shape[1]).expand_as(ids)
    prefix = shared.sum(1, keepdim=True)
    positions = torch.where(shared, place, prefix + packing.offsets(turns)).clamp(0, 255)

    language_model = model.model.language_model
    embedded = language_model.embed_tokens(ids)
    embedded = embedded.masked_scatter((ids == model.config.image_token_id)[..., None], image_tokens.to(embedded.dtype))
    bias = packing.as_bias(packing.visible(turns), embedded.dtype)
    hidden = language_model(inputs_embeds=embedded, attention_mask=bias, position_ids=positions).last_hidden_state
    wanted = answers[:, 1:].bool()
    logits = model.lm_head(hidden[:, :-1][wanted])
    return nn.functional.cross_entropy(logits.float(), ids[:, 1:][wanted])


def export(model: LlavaForConditionalGeneration, directory: Path) -> None:
    """Write a transformers checkpoint folder: configuration, half-precision weights, tokenizer, processor."""
    processor = LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": world.IMAGE_SIZE},
            crop_size={"height": world.IMAGE_SIZE, "width": world.IMAGE_SIZE},
            image_mean=list(clip.MEAN),
            image_std=list(clip.STD),
        ),
        tokenizer=llava_tokenizer(),
        patch_size=world.CELL,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(directory)
    model.half().save_pretrained(directory)  # type: ignore[no-untyped-call]
