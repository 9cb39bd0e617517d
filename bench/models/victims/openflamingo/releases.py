"""The published checkpoints, all trained around OpenAI's ViT-L/14: each needs the language model it was trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One checkpoint.pt.

    Attributes:
        repository: on the hub, under "openflamingo/".
        language: hub id of the language model and tokenizer.
        every: a gated block precedes every so many of its layers.
    """

    repository: str
    language: str
    every: int


RELEASES = (
    Release("OpenFlamingo-9B-vitl-mpt7b", "anas-awadalla/mpt-7b", 4),
    Release("OpenFlamingo-3B-vitl-mpt1b", "anas-awadalla/mpt-1b-redpajama-200b", 1),
    Release("OpenFlamingo-3B-vitl-mpt1b-langinstruct", "anas-awadalla/mpt-1b-redpajama-200b-dolly", 1),
    Release("OpenFlamingo-4B-vitl-rpj3b", "togethercomputer/RedPajama-INCITE-Base-3B-v1", 2),
    Release("OpenFlamingo-4B-vitl-rpj3b-langinstruct", "togethercomputer/RedPajama-INCITE-Instruct-3B-v1", 2),
)
