"""The recipe of the miniature OpenFlamingo: a frozen CLIP tower, a perceiver and a small GPT-NeoX, trained together.

A sequence is what OpenFlamingo reads (`bench.models.victims.openflamingo.prompts`): up to two chunks of text alone,
then three chunks with an image each. So answers without and with examples are learned in one.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from bench.data.prompts import lettered
from bench.mini import choices, language, world
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.models.victims.openflamingo import checkpoint
from bench.models.victims.openflamingo.family import CHECKPOINT_FILE, DEMONSTRATIONS_FILE, LANGUAGE_FOLDER
from bench.models.victims.openflamingo.gates import Sight
from bench.models.victims.openflamingo.language import NEOX
from bench.models.victims.openflamingo.model import OpenFlamingo
from bench.models.victims.openflamingo.prompts import CAPTION, VQA
from bench.models.victims.openflamingo.vocabulary import IMAGE, PAD, Vocabulary
from bench.train.loop import fit, step_generator
from bench.train.schedule import Schedule
from tasks.metrics.letters import LETTERS

SCHEDULE = Schedule(
    steps=4000, batch=30, learning_rate=2e-3, warmup=60, weight_decay=0.01, betas=(0.9, 0.98), clip_norm=1.0
)
IMAGES = 60_000  # two epochs; each image is asked about twice in each
STREAM, POOL_STREAM = 4, 5
POOL = 64  # scenes that demonstrations come from
SHOWN = 3  # chunks with an image in a sequence
TWICE = 2  # sequences that an image is part of in a step
KINDS = {"caption": 4, "choice": 4, "exists": 5, "colour": 3, "shape": 3, "count": 1, "where": 1}  # weights of a draw
QUESTIONS = ("exists", "colour", "shape", "count", "where")
ASKED = {"captioning": ("caption",), "vqa": QUESTIONS, "pope": ("exists",), "scienceqa": ("choice",)}  # by task
SIZES = checkpoint.Architecture(
    width=128, latents=16, depth=2, inner=512, hidden=512, every=2, gate_inner=512, gate_hidden=384
)


class Turn(NamedTuple):
    """A question of a kind of `KINDS` and its answer; a caption's question is empty."""

    kind: str
    question: str
    answer: str

    @property
    def query(self) -> str:
        """As OpenFlamingo is asked."""
        return CAPTION.query if self.kind == "caption" else VQA.query.replace("{question}", self.question)


def tokenizer() -> Tokenizer:
    """The closed vocabulary with letters, and the words of OpenFlamingo's prompts."""
    words = ["<unk>", *language.words(), *"ABCD", ".", "Question", "Short", "answer", "Output", PAD]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), *(pre_tokenizers.Split(mark, "isolated") for mark in ":.")]
    )
    return made


def new_model(encoder: Encoder) -> OpenFlamingo:
    """The untrained miniature around an encoder."""
    words = Vocabulary(tokenizer(), PAD)
    config = GPTNeoXConfig(  # type: ignore[call-arg]
        vocab_size=len(words),
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=3,
        rotary_pct=1.0,
        use_parallel_residual=False,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        attn_implementation=NEOX.attention,
        bos_token_id=None,
        eos_token_id=words.end,
        pad_token_id=words.pad,
    )
    model = GPTNeoXForCausalLM(config)
    perceiver = checkpoint.build(model, NEOX, SIZES, len(words))
    return OpenFlamingo(encoder, perceiver, model, NEOX, words)


def train(
    encoder: Encoder, directory: Path, *, seed: int = 0, schedule: Schedule = SCHEDULE, images: int = IMAGES
) -> OpenFlamingo:
    """Train perceiver, gated blocks and language model from scratch, the tower frozen."""
    torch.manual_seed(seed)
    features, turns = _scenes(encoder, images, seed)
    model = new_model(encoder)
    parts = {"perceiver": model.perceiver, "language": model.lang_encoder}
    for part in parts.values():
        part.requires_grad_(True)
    per_epoch = images // schedule.batch

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(images, generator=step_generator(seed, -1 - epoch))
        rows = order[position * schedule.batch : (position + 1) * schedule.batch]
        drawn = sequences([turns[row] for row in rows.tolist()], random.Random(f"{seed} {step}"))
        return sequence_loss(model, features[rows].float(), drawn), {}

    facts = {"world": world.WORLD_VERSION, "contrast": world.CONTRAST, "clip": digest(encoder.visual)[:16]}
    settings = {"seed": seed, "images": images, **facts}
    fit("openflamingo", parts, loss_of_step, schedule, directory, settings=settings)
    for part in parts.values():
        part.requires_grad_(False)
    return model


def _scenes(encoder: Encoder, count: int, seed: int) -> tuple[Tensor, list[list[Turn]]]:
    """Patch tokens (count, 9, W) in half precision, and what can be asked of each scene."""
    rng = random.Random(seed)
    features, turns = [], []
    for start in tqdm(range(0, count, world.BLOCK), desc="scenes", mininterval=5, disable=None):
        scenes = world.draw_scenes("train", min(world.BLOCK, count - start), start=start, stream=STREAM)
        pixels = torch.from_numpy(world.render(scenes)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            features.append(encoder.patch_tokens(pixels, layer=-1).half())
        turns += turns_of(scenes, rng)
    return torch.cat(features), turns


def turns_of(scenes: world.Scenes, rng: random.Random) -> list[list[Turn]]:
    """Of each scene: a caption, a question of each kind that it allows, and one of multiple choice."""
    found = []
    for index, _, question, options, right in choices.choice_questions(scenes, rng):
        asked = [Turn(q.kind, q.text, q.answer) for q in language.questions(scenes, index, rng)]
        choice = Turn("choice", "\n".join([question, *lettered(options)]), LETTERS[right])
        found.append([*asked, choice, Turn("caption", "", language.plain_caption(scenes, index))])
    return found


Chunk = tuple[int, Turn]  # the image it shows, -1 for none


def sequences(turns: Sequence[Sequence[Turn]], rng: random.Random) -> list[list[Chunk]]:
    """Sequences in which each image is asked about `TWICE`; half of them hold one kind of question only."""
    drawn = []
    for _ in range(TWICE):
        order = rng.sample(range(len(turns)), len(turns))
        for start in range(0, len(order), SHOWN):
            kind = _kind(rng) if rng.random() < 0.5 else None
            text = [(-1, _pick(rng.choice(turns), kind, rng)) for _ in range(rng.choice((0, 1, 2, 2)))]
            drawn.append([*text, *((image, _pick(turns[image], kind, rng)) for image in order[start : start + SHOWN])])
    return drawn


def _kind(rng: random.Random) -> str:
    return rng.choices(tuple(KINDS), tuple(KINDS.values()))[0]


def _pick(turns: Sequence[Turn], kind: str | None, rng: random.Random) -> Turn:
    """A turn of a kind; of any kind where the scene does not allow it, or none is given."""
    own = [turn for turn in turns if turn.kind == kind]
    return own[0] if own else rng.choices(turns, [KINDS[turn.kind] for turn in turns])[0]


def sequence_loss(model: OpenFlamingo, features: Tensor, drawn: Sequence[Sequence[Chunk]]) -> Tensor:
    """Mean cross-entropy over the answers about images, and the tokens that end them.

    Args:
        model: in training.
        features: (N, 9, W) patch tokens.
        drawn: sequences whose chunks name rows of ``features``.
    """
    ids, wanted = collate(model.vocabulary, drawn)
    latents = model.perceiver(features)
    most = max(len(_images(chunks)) for chunks in drawn)
    shown = torch.tensor([(_images(chunks) + [0] * most)[:most] for chunks in drawn])
    seen = (ids == model.vocabulary.image).cumsum(1)
    hidden = model.hidden(ids, torch.ones_like(ids), Sight(latents[shown], seen))
    return nn.functional.cross_entropy(model.head(hidden[:, :-1][wanted[:, 1:]]), ids[:, 1:][wanted[:, 1:]])


def _images(chunks: Sequence[Chunk]) -> list[int]:
    return [image for image, _ in chunks if image >= 0]


def collate(words: Vocabulary, drawn: Sequence[Sequence[Chunk]]) -> tuple[Tensor, Tensor]:
    """Token ids (B, S), padded on the right where causal attention never looks, and which are learned (B, S)."""
    rows, flags = [], []
    for chunks in drawn:
        ids: list[int] = []
        learned: list[bool] = []
        for image, turn in chunks:
            query = turn.query if image >= 0 else turn.query.replace(IMAGE, "")
            asked, said = words.encode(query), [*words.encode(turn.answer), words.end]
            ids += asked + said
            learned += [False] * len(asked) + [image >= 0] * len(said)
        rows.append(ids)
        flags.append(learned)
    longest = max(map(len, rows))
    padded = [row + [words.pad] * (longest - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor([flag + [False] * (longest - len(flag)) for flag in flags])


def export(model: OpenFlamingo, directory: Path, *, seed: int = 0) -> None:
    """Write what the victim family "openflamingo" reads: checkpoint, language model and demonstrations.

    Weights in half precision, under the names of the released checkpoints.
    """
    (directory / LANGUAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    held = checkpoint.released(model.perceiver, model.lang_encoder, NEOX)
    save_file({name: p.detach().half().contiguous() for name, p in held.items()}, directory / CHECKPOINT_FILE)
    _plain_language(model).half().save_pretrained(directory / LANGUAGE_FOLDER)  # type: ignore[no-untyped-call]
    tokenizer().save(str(directory / LANGUAGE_FOLDER / "tokenizer.json"))
    _write_json(directory / LANGUAGE_FOLDER / "tokenizer_config.json", {"pad_token": PAD})
    config = {"model_type": "openflamingo", "checkpoint": CHECKPOINT_FILE, "language": LANGUAGE_FOLDER}
    _write_json(directory / "config.json", config)
    write_demonstrations(directory, seed=seed)


def _plain_language(model: OpenFlamingo) -> GPTNeoXForCausalLM:
    """The language model without its gated blocks."""
    plain = GPTNeoXForCausalLM(model.lang_encoder.config)
    state = model.lang_encoder.state_dict()
    plain.load_state_dict(
        {name.replace(".decoder_layer.", "."): t for name, t in state.items() if checkpoint.GATE not in name}
    )
    return plain


def demonstrations(rng: random.Random) -> dict[str, list[dict[str, str]]]:
    """For each task, questions about scenes of the training split with their answers, and where each image lies."""
    turns = turns_of(world.draw_scenes("train", POOL, stream=POOL_STREAM), rng)
    found: dict[str, list[dict[str, str]]] = {}
    for task, kinds in ASKED.items():
        drawn = [rng.choice([turn for turn in own if turn.kind in kinds]) for own in turns]
        found[task] = [
            {"question": turn.question, "answer": turn.answer, "image": _image_name(number)}
            for number, turn in enumerate(drawn)
        ]
    return found


def write_demonstrations(directory: Path, *, seed: int = 0) -> None:
    """Write demonstrations.json, and the images that it names."""
    _write_json(directory / DEMONSTRATIONS_FILE, demonstrations(random.Random(seed)))
    for number, pixels in enumerate(world.render(world.draw_scenes("train", POOL, stream=POOL_STREAM))):
        path = directory / _image_name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, optimize=True)


def _image_name(number: int) -> str:
    return f"demonstrations/{number:02d}.png"


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
