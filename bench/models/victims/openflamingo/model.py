"""OpenFlamingo as the tasks see it, loaded from a released checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.victims.openflamingo import checkpoint
from bench.models.victims.openflamingo.answers import PreparedAnswers
from bench.models.victims.openflamingo.generation import Decoding, Said, beam_search, greedy
from bench.models.victims.openflamingo.language import Family, read_language
from bench.models.victims.openflamingo.network import Network
from bench.models.victims.openflamingo.prompts import Prompt
from bench.models.victims.openflamingo.reading import Speaking, check_length, read, sight
from bench.models.victims.openflamingo.vocabulary import Vocabulary, read_vocabulary
from bench.models.victims.prompts import pad_left
from tasks.base import Answer, answers_of

GREEDY = Decoding()


def load_openflamingo(
    path: str, language: str, encoder: Encoder, *, every: int | None = None, dtype: torch.dtype | str | None = None
) -> "OpenFlamingo":
    """Load a released checkpoint around ``encoder``.

    Args:
        path: checkpoint.pt.
        language: folder (or hub id) of the language model that it was trained on, with its tokenizer.
        encoder: the image encoder; the model goes to its device.
        every: layers of the language model to a gated block, where it is known; the checkpoint must agree.
        dtype: what weights are stored in: "auto" for the precision of the files, which is the rule on CUDA devices;
            float32 is the rule elsewhere. What is computed is float32 either way (see `OpenFlamingo.at`).

    Raises:
        UsageError: a file is missing or is none of that kind, a tensor is missing or left over, or the encoder's
            features do not fit.
    """
    device = encoder.mean.device
    stored = dtype or ("auto" if device.type == "cuda" else torch.float32)
    state = checkpoint.read_checkpoint(Path(path))
    vocabulary = read_vocabulary(language)
    model, family = read_language(language, stored)
    sizes = checkpoint.architecture(state, family, path)
    if every not in (None, sizes.every):
        raise UsageError(f"{path} has its first gated block at layer {sizes.every}, not {every}: another release?")
    perceiver = checkpoint.build(model, family, sizes, _rows(state, family, vocabulary, path))
    checkpoint.load(perceiver, model, family, state, path, stored if isinstance(stored, torch.dtype) else None)
    return OpenFlamingo(encoder, perceiver, model, family, vocabulary).to(device)


def _rows(state: dict[str, Tensor], family: Family, vocabulary: Vocabulary, path: str) -> int:
    """Embeddings, of which there is one to each token."""
    name = checkpoint.LANGUAGE + next(iter(family.trained))
    if name not in state:
        raise UsageError(f"{path} lacks {name}: was it trained on another language model?")
    if (rows := len(state[name])) != len(vocabulary):
        raise UsageError(
            f"{path} has {rows} embeddings, the language model's tokenizer {len(vocabulary)} tokens, OpenFlamingo's "
            "own included; give the language model that the checkpoint was trained on"
        )
    return rows


class OpenFlamingo(Network):
    """A network that answers prompts; see `tasks.base.VisionLanguageModel`, with prompts as of `prompts.Asker`."""

    def token_texts(self) -> list[str | None]:
        """What each token of the vocabulary spells; None for the one that ends an answer."""
        return self.vocabulary.spell()

    def answers(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> PreparedAnswers:
        """Prepare B prompts with their answers for scoring candidates of the images that are asked about."""
        return PreparedAnswers(self, prompts, answers)

    def generate(
        self, images: Tensor, prompts: Sequence[Prompt], *, max_new_tokens: int, decoding: Decoding = GREEDY
    ) -> list[Answer]:
        """Answers to B images (B, 3, H, W) in [0, 1], as decoded: what is kept of them, `prompts.Style.finish` says.

        An answer is an error where the logits behind any of its tokens, the end included, are not finite.
        """
        said = self.generate_ids(images, prompts, max_new_tokens=max_new_tokens, decoding=decoding)
        return answers_of([self.vocabulary.decode(ids) for ids in said.ids], said.finite)

    @torch.no_grad()
    def generate_ids(
        self, images: Tensor, prompts: Sequence[Prompt], *, max_new_tokens: int, decoding: Decoding = GREEDY
    ) -> Said:
        """As `generate`: token ids.

        Raises:
            UsageError: a prompt is too long, or has more tags or fewer than images.
        """
        rows = [read(self, prompt) for prompt in prompts]
        lengths = [len(row) for row in rows]
        check_length(max(lengths) + max_new_tokens, self.longest)
        ids, mask = (torch.tensor(x, device=self.device) for x in pad_left(rows, self.vocabulary.pad))
        speaking = Speaking(self, ids, mask, sight(self, prompts, images, ids))
        if decoding.beams == 1:
            return greedy(speaking, self.vocabulary.end, max_new_tokens)
        return beam_search(speaking, lengths, self.vocabulary.end, max_new_tokens, decoding)
