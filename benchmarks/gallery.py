"""Draw the README's picture: mini scenes clean and attacked, with the answers of plain CLIP and of FARE.

Usage: python benchmarks/gallery.py results/mini/gallery.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import to_pil_image

from attacks.apgd import apgd
from attacks.threat import ThreatModel
from bench.mini import data
from bench.models.encoders.load import load_encoder
from bench.models.victims.load import load_victim
from tasks.base import Answer
from tasks.captioning import Captioning

COLUMNS, SCALE, MARGIN, LINE = 6, 4, 8, 15


def main(target: Path) -> None:
    """Attack the first scenes of the caption set at 4/255 and draw what each model then says."""
    dataset = data.build("mini-caption", COLUMNS)
    samples, task = dataset.samples, Captioning(dataset)
    rows: list[tuple[str, torch.Tensor, list[Answer]]] = []
    for label, name in (("CLIP", "clip"), ("FARE", "fare4")):
        encoder = load_encoder(name)
        victim = task.bind(load_victim("package:mini/weights/llava", encoder))
        clean = torch.stack([encoder.preprocess(s.image) for s in samples])  # type: ignore[arg-type]
        if not rows:
            rows.append((f"clean, {label} says", clean, victim.predict(clean, samples)))
        objective = victim.objective(clean, samples, "reference-0")
        images = apgd(objective, clean, ThreatModel("linf", 4 / 255), steps=100).images
        rows.append((f"attacked at 4/255, {label} says", images, victim.predict(images, samples)))
    _draw(rows).save(target, optimize=True)


def _draw(rows: list[tuple[str, torch.Tensor, list[Answer]]]) -> Image.Image:
    side = SCALE * rows[0][1].shape[-1]
    height = side + 5 * LINE
    sheet = Image.new("RGB", (COLUMNS * (side + MARGIN) + MARGIN, len(rows) * height + MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for r, (label, images, answers) in enumerate(rows):
        top = r * height + MARGIN
        pen.text((MARGIN, top), label, "gray", font)
        for c, answer in enumerate(answers):
            left = MARGIN + c * (side + MARGIN)
            tile = to_pil_image(images[c]).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + LINE))
            words = answer.text.replace(" and ", "\nand ")
            pen.multiline_text((left, top + LINE + side + 2), words, "black", font, spacing=1)
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]))
