"""From outside: a language model behind an endpoint as a judge. Its name, and so every record, says which one it is."""

from collections.abc import Mapping, Sequence
from functools import cache

from openai import OpenAI

PROMPT = (
    "How similar in meaning are these two texts, from 0 to 1? Answer with the number alone.\n1. {said}\n2. {wanted}"
)


class Asked:
    """Asks a model of an OpenAI-compatible server, each pair of texts once."""

    def __init__(self, url: str, model: str) -> None:
        self.name = f"asked?model={model}"
        client = OpenAI(base_url=url, api_key="none")

        @cache
        def similarity(said: str, wanted: str) -> float:
            text = PROMPT.format(said=said, wanted=wanted)
            reply = client.chat.completions.create(
                model=model, temperature=0, messages=[{"role": "user", "content": text}]
            )
            return min(max(float(reply.choices[0].message.content or ""), 0.0), 1.0)

        self.similarity = similarity

    def __call__(self, said: str, wanted: Sequence[str]) -> float:
        """The mean over the texts wanted."""
        return sum(self.similarity(said, one) for one in wanted) / len(wanted)

    def digests(self) -> Mapping[str, str]:
        """Nobody outside knows the weights."""
        return {}


def asked(settings: Mapping[str, str], encoders: str) -> Asked:
    """``--judge "asked?url=URL&model=NAME"``."""
    return Asked(settings["url"], settings["model"])
