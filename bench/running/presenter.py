"""Showing a victim images that were made elsewhere."""

import torch
from torch import Tensor

from attacks.outcome import Outcome
from bench.running.attack_batch import Attacked, Attacker, Made, Models
from bench.running.brought import Brought
from bench.running.certify import AttackBatch, Conditions, certify


class Presenter(Attacker):
    """An attacker whose images are made already; it only certifies them and asks."""

    def __init__(self, attacker: Attacker, brought: Brought) -> None:
        super().__init__(attacker.config, attacker.setup, attacker.conditions)
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
