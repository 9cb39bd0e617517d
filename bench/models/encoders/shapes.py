"""The sizes of an image tower that memory depends on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TowerShapes:
    """In elements.

    Attributes:
        blocks: up to the one whose output is read.
        width: channels of a patch token.
        mlp: hidden elements of a block that its activation function keeps for a gradient.
        pixels: elements of an image that the first layer keeps.
    """

    blocks: int
    width: int
    mlp: int
    pixels: int
