"""How an answer must begin if it is to agree with an annotator: whether a question is broken shows after one token."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.metrics.vqa_accuracy import ARTICLES, NUMBERS, normalise

_RUN = re.compile(r"[^\W_]+")  # letters and digits; the VQA normalisation changes little else in a word


class Openings:
    """The tokens of a vocabulary by what they spell.

    A token rules an answer out only if no text that begins with it can agree after the official normalisation, which
    forgives capitals, articles, punctuation and number words: to "yes", "Yes" and "The" may lead, to "3" also "thr".
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        """Sort the tokens.

        Args:
            texts: what each token spells; None for those that end an answer.
        """
        self._open = torch.zeros(len(texts), dtype=torch.bool)  # no letter yet, or several words: anything may follow
        self._spelling: dict[str, list[int]] = {}
        for token, text in enumerate(texts):
            if text is None:
                continue
            runs = _RUN.findall(text.lower())
            if len(runs) == 1:
                self._spelling.setdefault(runs[0], []).append(token)
            else:
                self._open[token] = True

    def of(self, answers: Sequence[str]) -> Tensor:
        """(V,) bool: the tokens that an answer which agrees with one of ``answers`` may begin with."""
        wanted = {normalise(answer, None) for answer in answers}
        if "" in wanted:  # agrees with answers of articles and punctuation alone, and with the lack of one
            return torch.ones_like(self._open)
        allowed = self._open.clone()
        for word in {*ARTICLES, *(start for answer in wanted for start in _starts(answer))}:
            for end in range(1, len(word) + 1):
                allowed[self._spelling.get(word[:end], [])] = True
        return allowed


def _starts(answer: str) -> list[str]:
    """Letters and digits that a normalised answer may have had at its beginning."""
    runs = _RUN.findall(answer)
    return ["".join(runs), *(word for word, digits in NUMBERS.items() if runs[:1] == [digits])]
