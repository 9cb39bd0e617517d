"""Showing a victim images that were made elsewhere, or in 8 bits as they are sent."""

from dataclasses import replace

import torch
from torch import Tensor

from attacks.outcome import Outcome
from bench.config import RunConfig
from bench.running.attack_batch import Attacked, Attacker, Made, Models
from bench.running.brought import Brought
from bench.running.certify import AttackBatch, Conditions, certify
from bench.running.images import as_png
from bench.running.load import Setup


class Presenter(Attacker):
    """An attacker whose images are made already; it only certifies them and asks."""

    def __init__(self, config: RunConfig, setup: Setup, conditions: Conditions, brought: Brought) -> None:
        super().__init__(config, setup, conditions)
        self.brought = brought
        self.rows = {sample.id: row for row, sample in enumerate(self.setup.samples)}
        self.checks = ()  # there is no objective to look at

    def attack(self, batch: AttackBatch) -> Attacked:
        """Show each sample's image once."""
        return self._once(batch, Models(self.setup.surrogate, self.setup.encoder, self.setup.victim), self.conditions)

    def _make(self, batch: AttackBatch, models: Models, conditions: Conditions) -> Made:
        images: Tensor = self.brought.images[[self.rows[sample.id] for sample in batch.volley.samples]]
        zeros = images.new_zeros(len(images))
        nothing = torch.zeros_like(zeros, dtype=torch.bool)
        outcome = Outcome(images, zeros, nothing, nothing, zeros.to(torch.int64))
        outcome, problems = certify(outcome, batch.clean_rows, batch.threat, batch.step)
        return Made(outcome, [None] * len(images), problems, [None] * len(images))


class EightBit(Attacker):
    """An attacker whose images are sent as PNG: what is certified, kept and asked about is what is sent."""

    def _make(self, batch: AttackBatch, models: Models, conditions: Conditions) -> Made:
        made = super()._make(batch, models, conditions)
        rounded = made.outcome._replace(images=as_png(made.outcome.images))
        outcome, problems = certify(rounded, batch.clean_rows, batch.threat, batch.step)
        return replace(made, outcome=outcome, problems=[a or b for a, b in zip(made.problems, problems, strict=True)])
