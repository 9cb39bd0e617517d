"""What `example_models.Parrot` loads."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from bench.models.encoders.encoder import Encoder
from tasks.base import Answer, AnswerScores, answers_of


class LoadedParrot:
    """Whatever the question, the answer is the word that is nearest to the image."""

    def __init__(self, encoder: Encoder, words: Sequence[str], settings: Mapping[str, str]) -> None:
        self.encoder, self.words, self.settings = encoder, list(words), settings

    @property
    def device(self) -> torch.device:
        return self.encoder.mean.device

    def digests(self) -> dict[str, str]:
        return {"language": ",".join(self.words)}

    def make_room(self, batch: int | None) -> str:
        return "a parrot needs no room"

    def preprocess(self, image: Image.Image) -> Tensor:
        return self.encoder.preprocess(image)

    def at(self, precision: str) -> "LoadedParrot":
        return LoadedParrot(self.encoder.at(precision), self.words, self.settings)

    def token_texts(self) -> list[str | None]:
        return list(self.words)

    def scores(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """(B, K) for images (B, 3, H, W) and K texts."""
        return 100 * normalize(self.encoder(images), dim=-1) @ self.encoder.text.embed(texts).T

    @torch.no_grad()
    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[Answer]:
        scores = self.scores(images, self.words)
        said = [self.words[k] for k in scores.argmax(1).tolist()]
        if self.settings.get("manner") == "loud":
            said = [word.upper() for word in said]
        return answers_of(said, scores.isfinite().all(1))

    def answers(self, prompts: Sequence[str], answers: Sequence[str]):
        answers = list(answers)

        def judge(images: Tensor, rows: Tensor) -> AnswerScores:
            wanted = [answers[row] for row in rows.tolist()]
            own = self.scores(images, wanted).diagonal()
            others = self.scores(images, self.words)
            nll = torch.cat([own[:, None], others], 1).logsumexp(1) - own
            first = others.argmax(1)
            greedy = torch.tensor([self.words[k] == w for k, w in zip(first.tolist(), wanted, strict=True)])
            return AnswerScores(nll, greedy, first)

        return judge
