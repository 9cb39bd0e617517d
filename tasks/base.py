"""The nouns of this room: samples, datasets, tasks, and the two kinds of model a task can be bound to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from attacks.checks import SanityCheck
from attacks.objective import Objective
from tasks import protocol as counting
from tasks.calls import Call

NOT_FINITE = "the model's output for this image is not finite (NaN or infinite)"


class StoredImage(Protocol):
    """An image file inside a larger file, such as a tar or a table; read only when it is opened."""

    @property
    def label(self) -> str:
        """What errors call it."""

    def read(self) -> bytes:
        """The bytes of the image file."""


@dataclass(frozen=True)
class Target:
    """What an attacker wants an image to be taken for.

    Attributes:
        image: a picture of it, or where it lies.
        text: what the picture shows; empty where nobody said it.
        keywords: words that a caption of it should hold.
    """

    image: Image.Image | Path | StoredImage
    text: str = ""
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One thing to ask.

    Attributes:
        id: unique within its dataset.
        image: the picture, or where it lies.
        prompt: the question; empty where the task has a fixed one.
        references: captions, annotators' answers, the true class name, or the target text.
        group: what to cluster by in statistics: the image.
        label: index of the true class in `Dataset.classnames`, which may hold a name twice; None: its name tells it.
        attack_references: texts that an attack leads away from, where they are others than the references.
        choices: the options of a multiple-choice question, the first being A.
        categories: what a table may split scores by, such as "NAT" (natural science).
        captions: what people say of the image, where the references are something else.
        target: what an attacker wants it to be taken for.
    """

    id: str
    image: Image.Image | Path | StoredImage
    prompt: str
    references: tuple[str, ...]
    group: str
    label: int | None = None
    attack_references: tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    target: Target | None = None


@dataclass(frozen=True)
class Dataset:
    """Samples with what they share.

    Attributes:
        classnames: of a classification set, in label order.
        templates: prompts with a field ``{c}``, of a classification set.
        prompt_suffix: appended to every question, e.g. how long an answer may be.
        max_new_tokens: limit of a generated answer.
        chance: score in percent of guessing, where it is known.
        native_size: images are attacked at the size they have; the encoder resizes them.
        broken_below: CIDEr below which a caption counts as broken and is attacked no more.
        scoring: how answers to questions are scored, where a task has several ways: "annotators" or "exact".
        answer_words: how "yes" and "no" are spelled where a model is led to say them.
        notes: what whoever runs this should know of it, such as classes without images.
    """

    name: str
    samples: tuple[Sample, ...]
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    prompt_suffix: str = ""
    max_new_tokens: int = 20
    chance: float | None = None
    native_size: bool = False
    broken_below: float = 10.0
    scoring: str = "annotators"
    answer_words: tuple[str, str] = ("yes", "no")
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model says of one image.

    Attributes:
        text: the answer.
        error: why it counts for nothing, e.g. `NOT_FINITE`: then it is neither right nor wrong; None for an answer.
        call: what is known of the call, of a model behind an endpoint.
    """

    text: str
    error: str | None = None
    call: Call | None = None


def answers_of(texts: Sequence[str], finite: Tensor) -> list[Answer]:
    """Texts as answers; finite (B,) says whether every number behind each was finite."""
    return [Answer(t, None if sound else NOT_FINITE) for t, sound in zip(texts, finite.tolist(), strict=True)]


class Prompt(str):
    """The text that a model is asked, with what a model goes by that shows examples before a question.

    Attributes:
        task: name of the task whose examples suit it.
        sample_id: of the sample that is asked about.
        question: the text without the dataset's suffix.
    """

    task: str
    sample_id: str
    question: str

    @classmethod
    def of(cls, task: str, sample_id: str, question: str, suffix: str = "") -> "Prompt":
        """The text is the question and the suffix."""
        prompt = cls(question + suffix)
        prompt.task, prompt.sample_id, prompt.question = task, sample_id, question
        return prompt


class AnswerScores(NamedTuple):
    """What a model thinks of given answers, one row per sample.

    Attributes:
        nll: (B,) mean negative log-likelihood of the answer's tokens and the end token.
        greedy: (B,) bool: each of the answer's tokens is the most likely one, so greedy decoding says the answer,
            whether it ends there or goes on.
        first: (B,) int64: the token that greedy decoding says first.
        text_nll: (B,) the same as ``nll`` without the end token; None where that counts no end token anyway.
    """

    nll: Tensor
    greedy: Tensor
    first: Tensor
    text_nll: Tensor | None = None

    @property
    def nll_without_end(self) -> Tensor:
        """(B,) negative log-likelihood of the answer's tokens, whether it ends there or goes on."""
        return self.nll if self.text_nll is None else self.text_nll


class TextClassifier(Protocol):
    """A text tower that makes class weights."""

    @property
    def scale(self) -> float | Tensor:
        """The factor from cosine similarity to logit; a tower may add a ``bias``, as SigLIP's does."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(N, D) embeddings of unit length."""

    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class weights (D, K), unit columns: the mean embedding of a name in all templates."""


class ImageTextEncoder(Protocol):
    """A CLIP: an image encoder with the text tower it was trained beside (`bench.models.encoders.encoder.Encoder`)."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> embeddings (B, D), not normalised."""

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, W): what a vision-language model reads."""

    @property
    def text(self) -> "TextClassifier":
        """The text tower."""


@runtime_checkable
class ClassifyingEncoder(ImageTextEncoder, Protocol):
    """An encoder that tells classes apart in a way of its own, such as one behind a defence that tunes prompts."""

    def class_logits(self, images: Tensor, classnames: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> logits (B, K)."""


class VisionLanguageModel(Protocol):
    """A model that answers prompts about images, built around an image encoder."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1]: the pixels that an attack may change, not normalised."""

    def at(self, precision: str) -> "VisionLanguageModel":
        """The same model computing in "float32", "bf16" or "fp16"; images and losses stay float32."""

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> "AnswerLoss":
        """Prepare prompts and answers for scoring many candidate images; tokenises once."""

    def token_texts(self) -> list[str | None]:
        """What each token of the vocabulary spells; None for those that end an answer."""

    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[Answer]:
        """Greedy answers to B images (B, 3, H, W) in [0, 1]; an error where a token's logits are not finite."""


class AnswerLoss(Protocol):
    """Scores prepared answers for candidate images."""

    def __call__(self, images: Tensor, rows: Tensor) -> AnswerScores:
        """Score images (b, 3, H, W); rows (b,) names the prepared prompt of each."""


class Victim(Protocol):
    """A model bound to a task: it answers samples and tells an attacker how it is doing."""

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """The model's answers to B images (B, 3, H, W) in [0, 1]; an error where a number behind one is not finite."""

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """What an attacker with this goal ascends.

        ``images`` are the clean ones; `Task.applies` holds for every sample.
        """


class Task(Protocol):
    """One way of asking and scoring.

    Attributes:
        version: raised whenever anything that moves a score changes.
        metric: its name and unit, e.g. "accuracy (%)".
        ceiling: the highest score there is, on the metric's scale; None where there is no bound.
        worst: the direction in which an attacker pushes the score.
        model: which kind of model `bind` takes.
        answers: what answers are, so that tables know how to count them beside the score: "text", "class", "yes-no" or
            "choice". A task may do without it; then they are texts.
        part_scores_as_whole: whether a sample's score is the same in a run on fewer samples, so that a part of a run
            can be compared with the whole.
        dataset: what is asked.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    metric: ClassVar[str]
    ceiling: ClassVar[float | None]
    worst: ClassVar[Literal["min", "max"]]
    model: ClassVar[Literal["encoder", "vlm"]]
    answers: ClassVar[str]
    part_scores_as_whole: ClassVar[bool]
    dataset: Dataset

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Why a dataset cannot be asked, in words that follow its name; None if it can."""

    def __init__(self, dataset: Dataset, protocol: counting.Protocol) -> None: ...

    def bind(self, model: object) -> Victim:
        """The victim for this task's samples."""

    def score(self, prediction: str, sample: Sample) -> float:
        """The score of an answer on the metric's published scale; depends on nothing else."""

    def broken(self, score: float, sample: Sample) -> bool:
        """Whether an attacker can gain no more from this sample."""

    def applies(self, goal: str, sample: Sample) -> bool:
        """Whether an attack goal makes sense for a sample; ValueError if it makes none for the task."""

    def checks(self, victim: Victim) -> list[SanityCheck]:
        """What may keep any score on this dataset from meaning what it says; a task may do without this method."""


def asks_prompts(dataset: Dataset) -> str | None:
    """Why a dataset does not suit a task that asks each image a prompt; None if it does."""
    if dataset.classnames:
        return "has classes where prompts are needed"
    if not all(sample.prompt.strip() for sample in dataset.samples):
        return "has samples without a prompt; give its row prompt = ..."
    for sample in dataset.samples:
        if sample.references and not any(reference.strip() for reference in sample.references):
            return f"has sample {sample.id!r} with empty texts only to score against; remove it"
    return None
