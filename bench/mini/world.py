"""The mini world: captioned scenes of coloured, textured shapes, drawn with signed distance functions.

A scene is up to three objects in distinct cells of a 3 x 3 grid on a textured background. Everything about scene
``i`` of a split is a function of (world version, split, i): scenes are drawn in blocks of `BLOCK`, each from its own
random stream, so a longer split starts with the very scenes of a shorter one.

Scenes are stored as arrays over scenes (and over object slots), because that is what renders fast; `Scenes.objects`
gives the readable view of one scene.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WORLD_VERSION = 1
SPLITS = {"train": 0, "validation": 1, "test": 2}
IMAGE_SIZE = 48
GRID = 3
CELL = IMAGE_SIZE // GRID
MAX_OBJECTS = 3
BLOCK = 1024
CONTRAST = 0.85  # of the whole image about mid grey: places the paper's two radii where both mean something
WINDOW = 24  # pixels a side in which an object is drawn; a large object with its jitter fits

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star", "diamond", "bar", "crescent", "hexagon")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.97, 0.90, 0.15),
    "green": (0.15, 0.65, 0.20),
    "cyan": (0.10, 0.82, 0.85),
    "blue": (0.12, 0.22, 0.85),
    "purple": (0.50, 0.12, 0.65),
    "pink": (0.98, 0.52, 0.75),
    "white": (1.00, 1.00, 1.00),
    "black": (0.03, 0.03, 0.03),
}
SIZES = {"small": (4.9, 5.6), "large": (6.8, 7.6)}  # radius in pixels
TEXTURES = ("plain", "striped", "dotted")
STYLES = ("photo", "sketch")
COUNTS = ("one", "two", "three")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")

COLOUR_VALUES = np.array(list(COLOURS.values()), np.float32)
_SIZE_RANGES = np.array(list(SIZES.values()), np.float32)
_GRAIN = 0.03 * np.random.default_rng(WORLD_VERSION).standard_normal((256, 256, 3), np.float32)


class Object(NamedTuple):
    """One object of a scene, in words. ``place`` is "top left", "middle", "right", ... ."""

    shape: str
    colour: str
    size: str
    texture: str
    row: int
    column: int

    @property
    def place(self) -> str:
        """The object's cell in words, as an annotator would say it."""
        row, column = ROWS[self.row], COLUMNS[self.column]
        if row == column:
            return "middle"
        return " ".join(word for word in (row, column) if word != "middle")


@dataclass(frozen=True)
class Scenes:
    """N scenes as arrays; slots beyond ``count`` hold drawn but unused values."""

    count: Array  # (N,) 1..3
    style: Array  # (N,) index into STYLES
    shape: Array  # (N, 3) index into SHAPES
    colour: Array  # (N, 3)
    size: Array  # (N, 3)
    texture: Array  # (N, 3)
    cell: Array  # (N, 3) 0..8, row by row, distinct and ascending within a scene's used slots
    centre: Array  # (N, 3, 2) pixels, x then y
    radius: Array  # (N, 3) pixels
    angle: Array  # (N, 3) radians
    opacity: Array  # (N, 3)
    base: Array  # (N, 3) background colour
    coarse: Array  # (N, 4, 4, 3) background noise, first octave
    fine: Array  # (N, 9, 9, 3) second octave
    grain: Array  # (N, 2) where its pixel noise is cut from the world's sheet of grain

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, index: slice | Array) -> "Scenes":
        return Scenes(*(getattr(self, field.name)[index] for field in fields(self)))

    def objects(self, index: int) -> list[Object]:
        """The objects of one scene in reading order (cells ascend)."""
        return [
            Object(
                SHAPES[self.shape[index, slot]],
                list(COLOURS)[self.colour[index, slot]],
                list(SIZES)[self.size[index, slot]],
                TEXTURES[self.texture[index, slot]],
                *divmod(int(self.cell[index, slot]), GRID),
            )
            for slot in range(int(self.count[index]))
        ]


def draw_scenes(split: str, count: int, *, start: int = 0, stream: int = 0) -> Scenes:
    """Scenes ``start`` to ``start + count`` of a split.

    Args:
        split: "train", "validation" or "test"; splits never share a random stream.
        count: number of scenes.
        start: index of the first one.
        stream: a further split of the split (one per dataset), so that datasets do not share images.
    """
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    blocks = [_draw_block(split, stream, block) for block in range(first, last + 1)]
    merged = Scenes(*(np.concatenate([getattr(b, field.name) for b in blocks]) for field in fields(Scenes)))
    offset = start - first * BLOCK
    return merged[offset : offset + count]


def _draw_block(split: str, stream: int, block: int) -> Scenes:
    rng = np.random.default_rng([WORLD_VERSION, SPLITS[split], stream, block])
    n, slots = BLOCK, MAX_OBJECTS
    count = rng.choice(MAX_OBJECTS, size=n, p=(0.45, 0.35, 0.20)) + 1
    cells = rng.permuted(np.tile(np.arange(GRID * GRID), (n, 1)), axis=1)[:, :slots]
    unused = np.arange(slots) >= count[:, None]
    cells = np.sort(np.where(unused, cells + 100, cells), axis=1) % 100  # used slots first, in reading order
    size = rng.integers(len(SIZES), size=(n, slots))
    low, high = _SIZE_RANGES[size, 0], _SIZE_RANGES[size, 1]
    cell_centre = np.stack([cells % GRID, cells // GRID], axis=-1) * CELL + (CELL - 1) / 2
    return Scenes(
        count=count,
        style=(rng.random(n) < 0.06).astype(np.int64),
        shape=rng.integers(len(SHAPES), size=(n, slots)),
        colour=rng.integers(len(COLOURS), size=(n, slots)),
        size=size,
        texture=rng.choice(len(TEXTURES), size=(n, slots), p=(0.5, 0.25, 0.25)),
        cell=cells,
        centre=(cell_centre + rng.uniform(-1.0, 1.0, (n, slots, 2))).astype(np.float32),
        radius=(low + (high - low) * rng.random((n, slots))).astype(np.float32),
        angle=rng.uniform(-0.15, 0.15, (n, slots)).astype(np.float32),
        opacity=rng.uniform(0.6, 0.85, (n, slots)).astype(np.float32),
        base=rng.uniform(0.3, 0.7, (n, 3)).astype(np.float32),
        coarse=rng.normal(0, 0.09, (n, 4, 4, 3)).astype(np.float32),
        fine=rng.normal(0, 0.05, (n, 9, 9, 3)).astype(np.float32),
        grain=rng.integers(len(_GRAIN) - IMAGE_SIZE, size=(n, 2)),
    )


def render(scenes: Scenes) -> Array:
    """Draw scenes: (N, 48, 48, 3) uint8. Each image depends on its own scene only."""
    canvas = _background(scenes)
    for slot in range(MAX_OBJECTS):
        for shape in range(len(SHAPES)):
            rows = np.flatnonzero((scenes.count > slot) & (scenes.shape[:, slot] == shape))
            if rows.size:
                _paint(canvas, scenes, rows, slot, shape)
    canvas = 0.5 + CONTRAST * (canvas - 0.5)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _background(scenes: Scenes) -> Array:
    sketch = (scenes.style == STYLES.index("sketch"))[:, None]
    base = np.where(sketch, 0.78 + 0.12 * (scenes.base - 0.5), scenes.base)
    texture = _upsample(scenes.coarse) + _upsample(scenes.fine)
    canvas = base[:, None, None, :] + np.where(sketch[:, None, None], 0.3, 1.0) * texture
    for image, (top, left) in zip(canvas, scenes.grain, strict=True):
        image += _GRAIN[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
    return cast(Array, canvas.astype(np.float32, copy=False))


def _upsample(grid: Array) -> Array:
    """Bilinear, corners aligned: (N, g, g, 3) -> (N, 48, 48, 3)."""
    g = grid.shape[1]
    position = np.linspace(0, g - 1, IMAGE_SIZE, dtype=np.float32)
    weight = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(g, dtype=np.float32)))
    return cast(Array, np.einsum("yi,nijc,xj->nyxc", weight, grid, weight, optimize=True))


def _paint(canvas: Array, scenes: Scenes, rows: Array, slot: int, shape: int) -> None:
    """Blend object ``slot`` of the scenes in ``rows``, all of one shape, into the canvas."""
    centre, radius = scenes.centre[rows, slot], scenes.radius[rows, slot]
    corner = np.round(centre - (WINDOW - 1) / 2).astype(np.int64)  # of the window, x then y
    pixel = np.arange(WINDOW)
    xs, ys = corner[:, :1] + pixel, corner[:, 1:] + pixel  # (n, WINDOW)
    dx = (xs - centre[:, :1])[:, None, :]
    dy = (ys - centre[:, 1:])[:, :, None]
    cos, sin = (f(scenes.angle[rows, slot])[:, None, None] for f in (np.cos, np.sin))
    u = ((cos * dx + sin * dy) / radius[:, None, None]).astype(np.float32)
    v = ((cos * dy - sin * dx) / radius[:, None, None]).astype(np.float32)
    distance = _DISTANCES[SHAPES[shape]](u, v) * radius[:, None, None]  # pixels, negative inside

    sketch = (scenes.style[rows] == STYLES.index("sketch"))[:, None, None]
    filled = np.clip(0.5 - distance, 0, 1) * scenes.opacity[rows, slot][:, None, None]
    outline = np.clip(1.6 - np.abs(distance + 0.8), 0, 1) * 0.85
    alpha = np.where(sketch, outline, filled)[..., None]
    ink = COLOUR_VALUES[scenes.colour[rows, slot]][:, None, None, :]
    accent = np.where(ink.mean(-1, keepdims=True) < 0.6, np.float32(1.0), np.float32(0.05))
    pattern = 0.6 * _texture(scenes.texture[rows, slot], u, v, radius)[..., None]
    shade = 0.09 * (u + v)[..., None]  # lit from the top left
    paint = np.where(sketch[..., None], np.float32(0.15), ink + pattern * (accent - ink) - shade)

    inside = ((xs >= 0) & (xs < IMAGE_SIZE))[:, None, :] & ((ys >= 0) & (ys < IMAGE_SIZE))[:, :, None]
    index = (
        rows[:, None, None],
        np.clip(ys, 0, IMAGE_SIZE - 1)[:, :, None],
        np.clip(xs, 0, IMAGE_SIZE - 1)[:, None, :],
    )
    index = tuple(np.broadcast_to(i, inside.shape)[inside] for i in index)
    alpha, paint = alpha[inside], np.broadcast_to(paint, (*inside.shape, 3))[inside]
    canvas[index] += alpha * (paint - canvas[index])


def _texture(kind: Array, u: Array, v: Array, radius: Array) -> Array:
    """Share of the accent in an object's paint, (n, WINDOW, WINDOW) in [0, 1]: none, stripes or dots."""
    across, down = (2 * np.pi / 6.0 * radius[:, None, None] * axis for axis in (u, v))  # 6 pixels a period
    stripes = 0.5 + 0.5 * np.cos(down)
    dots = np.clip(1.5 * np.sin(across) * np.sin(down), 0, 1)
    kind = kind[:, None, None]
    return np.select([kind == 1, kind == 2], [stripes, dots], 0.0).astype(np.float32)


def _polygon(sides: int, turn: float, inradius: float) -> Callable[[Array, Array], Array]:
    angles = turn + 2 * np.pi * np.arange(sides) / sides

    def distance(u: Array, v: Array) -> Array:
        return cast(Array, np.max([np.cos(a) * u + np.sin(a) * v for a in angles], axis=0) - inradius)

    return distance


def _box(u: Array, v: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _star(u: Array, v: Array) -> Array:
    angle, length = np.arctan2(u, -v), np.hypot(u, v)
    sector = np.abs((angle / (2 * np.pi) * 5 + 0.5) % 1 - 0.5) * 2  # 0 at a tip, 1 between two tips
    return (length - (1.08 - 0.68 * sector**0.75)) * 0.75


# Signed distance in units of the radius, v pointing down; exact for the circle, a bound for the others.
_DISTANCES = {
    "circle": lambda u, v: np.hypot(u, v) - 0.92,
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "triangle": lambda u, v: _polygon(3, np.pi / 2, 0.55)(u, v - 0.2),
    "cross": lambda u, v: np.minimum(_box(u, v, 0.3, 1.0), _box(u, v, 1.0, 0.3)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.74) - 0.24,
    "star": _star,
    "diamond": lambda u, v: (np.abs(u) + np.abs(v) - 1.05) * 0.7071,
    "bar": lambda u, v: _box(u, v, 1.05, 0.36),
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.98, 0.78 - np.hypot(u - 0.5, v)),
    "hexagon": _polygon(6, 0.0, 0.82),
}
