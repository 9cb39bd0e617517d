"""How strong was the attack? Looks for robust samples of a finished run that a stronger one would still break.

On a random part of the samples that a run left robust: twice the steps, more restarts, a black-box attack, random
images of the ball; beside them signs that cost little (gradient against differences of the loss, loss curves) and a
ball so large that nothing may be robust in it. What is found is counted, and what may be left is bounded.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

from attacks.adaptive import way_of
from attacks.checks import slope_check
from attacks.presets import TASKLESS, AttackStep
from attacks.threat import Norm
from bench.analysis.audits import FILE
from bench.analysis.stats import clopper_pearson
from bench.config import RunConfig, request_of, resolve
from bench.errors import UsageError
from bench.models.defences.chain import Defended
from bench.records import Record, Run, write_atomically
from bench.records.files import unlinked
from bench.records.types import encode
from bench.records.worst import worst_choices, worst_scores
from bench.running.attack_batch import Attacker
from bench.running.certify import AttackBatch, Conditions, objective, start_of
from bench.running.defended import fixed
from bench.running.kinds import attack_kind
from bench.running.load import Setup, prepare
from bench.running.reliability import FEWEST, UNSETTLED, late_rise
from bench.running.units import threat_model
from bench.running.volley import Volley
from bench.verify import about_the_run
from tasks.base import Sample
from tasks.protocol import PROTOCOLS

BATCH = 25
RESTARTS, QUERIES, NOISES = 4, 1000, 10
WHOLE_RANGE = {"linf": 255.0, "l2": 1e4}  # a ball that holds every image
FEW = 16  # samples of which gradients are looked at


@dataclass(frozen=True)
class Finding:
    """One way in which a stronger attack might win, tried on some robust samples.

    Attributes:
        name: of what was tried.
        wins: whether it shows that the run's attack was too weak.
        detail: the numbers in words.
        tried: samples.
        broken: of them; 0 for signs that break nothing.
        most: with 97.5 % confidence, the points of score that it would take from the run (Clopper & Pearson 1934); of a
            metric without a top, the share of its samples in percent.
    """

    name: str
    wins: bool
    detail: str
    tried: int = 0
    broken: int = 0
    most: float | None = None


@dataclass(frozen=True)
class Audit:
    """What an audit of one run at one radius found.

    Attributes:
        run: its directory.
        radius: as recorded.
        score: what the run says.
        robust: samples that it left robust.
        findings: one for each way that was tried.
        seconds: that the audit took.
        evaluations: of gradients.
    """

    run: str
    radius: float
    score: float
    robust: int
    findings: tuple[Finding, ...]
    seconds: float
    evaluations: int

    @property
    def wins(self) -> int:
        """Attacks and signs that say that more could be broken."""
        return sum(finding.wins for finding in self.findings)

    @property
    def looked(self) -> int:
        """Attacks and signs that there were samples for."""
        return sum(finding.tried > 0 for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """As JSON data."""
        return cast(dict[str, Any], encode(asdict(self))) | {"wins": self.wins, "of": self.looked}


def audit(
    run: Run, *, samples: int = 50, radius: float | None = None, device: str = "auto", data_root: Path | None = None
) -> Audit:
    """Audit a finished run at a radius (default: its largest), on so many of its robust samples.

    Raises:
        UsageError: it was not attacked by anything that follows gradients, nothing is robust, or its data or models
            cannot be loaded.
    """
    if run.header.surrogate is not None:
        raise UsageError(f"{run.directory}: its images were made on another encoder; audit a run that attacks its own")
    changes = {"device": device} | ({"data_root": data_root} if data_root is not None else {})
    (config,) = resolve(request_of(run.header, **changes))
    config = replace(config, samples=run.header.n_samples, limit=run.header.limit, save_adversarial=False)
    step = _step_of(run, config)
    radius = max(run.header.radii) if radius is None else radius
    if radius not in run.header.radii:
        known = ", ".join(f"{one:g}" for one in run.header.radii)
        raise UsageError(f"{run.directory} has no radius {radius:g}; it has {known}")
    setup = prepare(config)
    if changed := next(about_the_run(run, setup), None):
        raise UsageError(
            f"{run.directory}: {changed.field} is {changed.recomputed!r} now and was {changed.recorded!r} when it ran; "
            "audit it with the data and weights that it had"
        )
    return _Auditor(run, config, setup, step, radius).audit(samples)


def save(found: Audit) -> None:
    """Write an audit beside its run, of which it says the name alone."""
    place = Path(found.run)
    text = json.dumps(found.as_json() | {"run": place.name}, indent=1)
    write_atomically(unlinked(place / FILE, place), text + "\n")


def _step_of(run: Run, config: RunConfig) -> AttackStep:
    """The step to strengthen: of those that follow gradients by themselves, the best informed and longest."""
    fit = [s for s in config.steps if attack_kind(s.kind).white_box and s.goal != "best" and s.start != "best"]
    if not fit:
        attack = run.header.attack
        raise UsageError(f"{run.directory}: no step of attack {attack!r} follows gradients, so it cannot be audited")
    return max(fit, key=lambda step: (way_of(step).knowledge, step.steps))


class _Auditor:
    """Strengthens one step of one run."""

    def __init__(self, run: Run, config: RunConfig, setup: Setup, step: AttackStep, radius: float) -> None:
        self.run, self.config, self.setup, self.radius = run, config, setup, radius
        self.step = replace(step, volley="", independent=False)
        protocol = PROTOCOLS[config.protocol]
        conditions = Conditions(config.seed, protocol.first_checkpoint, stop_when_fooled=True, store=None)
        self.attacker = Attacker(config, setup, conditions)
        self.attacker.checks = ()
        self.evaluations = 0

    def audit(self, count: int) -> Audit:
        """Try everything on a random part of the robust samples."""
        began = time.monotonic()
        header, records = self.run.header, self.run.records
        choices, scores = (of(header, records, self.radius) for of in (worst_choices, worst_scores))
        by_id = {sample.id: (row, sample) for row, sample in enumerate(self.setup.samples)}
        robust = [key for key, one in choices.items() if not self.setup.task.broken(one, by_id[key][1])]
        rows = [by_id[key][0] for key in random.Random(self.config.seed).sample(robust, min(count, len(robust)))]
        rows = [row for row in rows if self._applies(self.setup.samples[row])]
        if not rows:
            raise UsageError(f"{self.run.directory} left nothing robust at {self.radius:g}: there is nothing to audit")
        self.share = len(robust) / len(scores)
        findings = tuple(self._findings(sorted(rows)))
        score = sum(scores.values()) / len(scores)
        seconds = round(time.monotonic() - began, 1)
        return Audit(str(self.run.directory), self.radius, score, len(robust), findings, seconds, self.evaluations)

    def _applies(self, sample: Sample) -> bool:
        return self.step.goal in TASKLESS or self.setup.task.applies(self.step.goal, sample)

    def _findings(self, rows: list[int]) -> Iterator[Finding]:
        step = self.step
        yield self._slopes(rows[:FEW])
        yield self._curves()
        yield self._attack("more steps", [replace(step, name="audit:steps", steps=2 * step.steps)], rows)
        again = [replace(step, name=f"audit:restart-{n}", start="random") for n in range(RESTARTS)]
        yield self._attack("more restarts", again, rows)
        black = AttackStep("audit:black-box", "squares", QUERIES, step.goal, "clean", 0.0, through=self._asked)
        yield self._attack("black box", [black], rows)
        noise = [replace(step, name=f"audit:noise-{n}", steps=0, start="random") for n in range(NOISES)]
        yield self._attack("random images", noise, rows)
        yield self._unbounded(rows)

    @property
    def _asked(self) -> str:
        return "queries" if self.config.defence else ""

    def _slopes(self, rows: list[int]) -> Finding:
        """The gradient against differences of the loss."""
        batch = self._batch(self.step, rows, self.radius)
        victim = self.setup.victim
        if isinstance(victim, Defended):
            goal = fixed(victim, self.step, batch.clean, batch.volley.samples, self.config.seed)
        else:
            goal = objective(batch, self.setup.surrogate, self.setup.encoder)
        check = slope_check(goal, start_of(batch, self.attacker.conditions), range(len(rows)))
        return Finding("gradient against differences", not check.ok, check.detail, tried=len(rows))

    def _curves(self) -> Finding:
        """What the second half of the steps still brought, by the loss curves of the run."""
        name = "loss still rising"
        of_step = [r for r in self.run.records if r.step == self.step.name and r.radius == self.radius]
        shares = [share for record in of_step if (share := late_rise(record)) is not None]
        if len(shares) < FEWEST:
            return Finding(name, False, f"not known: too few loss curves of robust samples ({len(shares)})")
        late = median(shares)
        detail = f"the second half of the steps brings {late:.0%} of the rise (median)"
        return Finding(name, late > UNSETTLED, detail, tried=len(shares))

    def _attack(self, name: str, steps: Sequence[AttackStep], rows: list[int]) -> Finding:
        """Steps one after another on samples that are still robust."""
        left = rows
        for step in steps:
            left = [row for row, record in self._records(step, left, self.radius) if not self._breaks(row, record)]
        broken = len(rows) - len(left)
        most = clopper_pearson(broken, len(rows))[1] * self.share * (self.run.header.ceiling or 100.0)
        unit = "points of the score" if self.run.header.ceiling else "% of the samples"
        detail = f"{broken} of {len(rows)} robust samples broken; at most {most:.1f} {unit} are left"
        return Finding(name, broken > 0, detail, len(rows), broken, most)

    def _unbounded(self, rows: list[int]) -> Finding:
        """In a ball that holds every image, nothing may be robust."""
        rows, radius = rows[:FEW], WHOLE_RANGE[self.run.header.norm]
        step = replace(self.step, name="audit:unbounded", start="random")
        left = [row for row, record in self._records(step, rows, radius) if not self._breaks(row, record)]
        detail = f"{len(left)} of {len(rows)} samples are robust in a ball that holds every image"
        return Finding("unbounded", bool(left), detail, len(rows), len(rows) - len(left))

    def _records(self, step: AttackStep, rows: list[int], radius: float) -> Iterator[tuple[int, Record]]:
        for first in range(0, len(rows), BATCH):
            part = rows[first : first + BATCH]
            for row, images in zip(part, self.attacker.attack(self._batch(step, part, radius)), strict=True):
                self.evaluations += images[0].record.evaluations
                yield row, images[0].record

    def _breaks(self, row: int, record: Record) -> bool:
        return record.choice is not None and self.setup.task.broken(record.choice, self.setup.samples[row])

    def _batch(self, step: AttackStep, rows: list[int], radius: float) -> AttackBatch:
        volley = Volley((step,), [self.setup.samples[row] for row in rows])
        threat = threat_model(cast(Norm, self.run.header.norm), radius)
        targets = None if self.setup.targets is None else self.setup.targets[rows]
        return AttackBatch(volley, self.setup.images[rows], radius, threat, targets)
