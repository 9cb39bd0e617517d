"""The mini suite's claims: what the paper's story says of its encoders, held against whole runs."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.analysis.stats import Estimate, Paired, Scores, average_interval, paired
from bench.errors import UsageError
from bench.records import Run
from bench.records.worst import eps_label, groups_at, scores_at
from bench.tables.render import markdown_table

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Quantity:
    """A number that claims speak of: an encoder's mean score on a task, plain mean over its datasets.

    Attributes:
        encoder: Name of the encoder.
        task: Name of the task.
        radius: Radius in 1/255; 0 for clean.
        beyond_clean: Whether the clean score is subtracted, sample by sample.
        surrogate: Encoder on which the adversarial images are made; None for the encoder itself.
    """

    encoder: str
    task: str
    radius: float = 0.0
    beyond_clean: bool = False
    surrogate: str | None = None

    def __str__(self) -> str:
        minus = " minus clean" if self.beyond_clean else ""
        made = f", images made on {self.surrogate}" if self.surrogate else ""
        return f"{self.encoder} {self.task} {eps_label(self.radius)}{minus}{made}"


@dataclass(frozen=True)
class Claim:
    """That `left` RELATION `factor` x `right` + `offset`; without `right`, that `left` RELATION `offset`.

    Attributes:
        name: Number of the claim and its part, such as "C2 captioning, 4".
        left: What is claimed about.
        relation: ">=", "<=" or ">".
        right: What it is compared with.
        factor: See above.
        offset: See above, in the metric's points.
        significant: Whether the paired difference must be significant (two-sided p < 0.05) too.
    """

    name: str
    left: Quantity
    relation: str
    right: Quantity | None = None
    factor: float = 1.0
    offset: float = 0.0
    significant: bool = False


@dataclass(frozen=True)
class ClaimResult:
    """Whether a claim holds, and the numbers it rests on, in words."""

    name: str
    holds: bool
    statement: str


Relation = Callable[[float, float], bool]
RELATIONS: dict[str, Relation] = {">=": operator.ge, "<=": operator.le, ">": operator.gt}
TEXT_TASKS = ("captioning", "vqa")

CLAIMS: tuple[Claim, ...] = (
    Claim("C1 clean zero-shot", Quantity("clip", "zeroshot"), ">=", offset=85),
    Claim("C1 clean VQA", Quantity("clip", "vqa"), ">=", offset=85),
    Claim("C1 attacked zero-shot", Quantity("clip", "zeroshot", 4), "<=", offset=10),
    Claim("C1 attacked VQA", Quantity("clip", "vqa", 4), "<=", offset=5),
    *(
        Claim(
            f"C2 {task}, FARE above TeCoA, {eps}",
            Quantity(f"fare{eps}", task),
            ">",
            Quantity(f"tecoa{eps}", task),
            significant=True,
        )
        for task in TEXT_TASKS
        for eps in (2, 4)
    ),
    *(
        Claim(f"C2 {task}, FARE2 near CLIP", Quantity("fare2", task), ">=", Quantity("clip", task), factor=0.9)
        for task in TEXT_TASKS
    ),
    Claim("C3 VQA, FARE4 above CLIP", Quantity("fare4", "vqa", 4), ">=", Quantity("clip", "vqa", 4), offset=20),
    *(
        Claim(
            f"C3 {task}, FARE at least TeCoA, {eps}",
            Quantity(f"fare{eps}", task, eps),
            ">=",
            Quantity(f"tecoa{eps}", task, eps),
        )
        for task in TEXT_TASKS
        for eps in (2, 4)
    ),
    Claim("C4 CLIP says the target", Quantity("clip", "stealth", 4, True), ">=", offset=95),
    Claim(
        "C4 FARE4 at most a third",
        Quantity("fare4", "stealth", 4, True),
        "<=",
        Quantity("clip", "stealth", 4, True),
        factor=1 / 3,
    ),
    Claim(
        "C5 CLIP's images on FARE4",
        Quantity("fare4", "vqa", 4, surrogate="clip"),
        ">=",
        Quantity("fare4", "vqa", surrogate="clip"),
        offset=-10,
    ),
)


class _NotMeasured(Exception):  # noqa: N818  (an outcome, not an error)
    """A claim needs a number that no whole run has; the text says which."""


@dataclass(frozen=True)
class _Measured:
    """A quantity's value, and its samples by "dataset/sample id"."""

    estimate: Estimate
    scores: Scores
    groups: Mapping[str, str]

    def __str__(self) -> str:
        e = self.estimate
        return f"{e.value:.1f} [{e.low:.1f}, {e.high:.1f}] (n = {e.n})"


def evaluate_claims(runs: Iterable[Run], claims: Iterable[Claim] = CLAIMS) -> list[ClaimResult]:
    """Hold each claim against `runs`; one whose runs are missing or partial does not hold, and says which.

    Raises:
        UsageError: If two whole runs of an encoder on one dataset have the radius that a claim asks for.
    """
    runs = list(runs)
    return [_evaluate(claim, runs) for claim in claims]


def claims_block(runs: Iterable[Run]) -> str:
    """The claims of the mini suite, held against `runs`, as a Markdown table."""
    return claims_markdown(evaluate_claims(runs))


def claims_markdown(results: Iterable[ClaimResult]) -> str:
    """A Markdown table of claims."""
    rows = [[r.name, "yes" if r.holds else "**no**", r.statement] for r in results]
    return markdown_table([["claim", "holds", "evidence"], *rows]) + "\n"


def _evaluate(claim: Claim, runs: list[Run]) -> ClaimResult:
    try:
        left = _measure(claim.left, runs)
        right = _measure(claim.right, runs) if claim.right else None
    except _NotMeasured as missing:
        return ClaimResult(claim.name, False, f"not measured: {missing}")
    bound = claim.offset + (claim.factor * right.estimate.value if right else 0.0)
    holds = RELATIONS[claim.relation](left.estimate.value, bound)
    parts = [f"{claim.left} {left}, claimed {claim.relation} {bound:.1f}"]
    if right:
        terms = (f"{claim.factor:.3g} x " if claim.factor != 1 else "") + f"{claim.right} {right}"
        parts[0] += f" = {terms}" + (f" {claim.offset:+g}" if claim.offset else "")
    if right and claim.factor == 1:
        difference = _difference(left, right)
        significant = difference.p < SIGNIFICANT
        holds = holds and (significant or not claim.significant)
        parts.append(f"paired {difference.in_words()}, {'significant' if significant else 'not significant'}")
    return ClaimResult(claim.name, bool(holds), "; ".join(parts))


def _difference(left: _Measured, right: _Measured) -> Paired:
    if left.scores.keys() != right.scores.keys():
        raise UsageError("a claim compares two encoders that were not scored on the same samples")
    return paired(left.scores, right.scores, left.groups)


def _measure(quantity: Quantity, runs: list[Run]) -> _Measured:
    """The quantity's value over whole runs.

    Raises:
        _NotMeasured: If there is none, or one is partial or has unscored samples.
        UsageError: If there are two for one dataset.
    """
    chosen = _choose(quantity, runs)
    strata = [(_whole_scores(quantity, run), groups_at(run)) for run in chosen.values()]
    pooled: dict[str, float] = {}
    groups: dict[str, str] = {}
    for dataset, (scores, by) in zip(chosen, strata, strict=True):
        pooled |= {f"{dataset}/{sample}": score for sample, score in scores.items()}
        groups |= {f"{dataset}/{sample}": f"{dataset}/{group}" for sample, group in by.items()}
    ceiling = None if quantity.beyond_clean else next(iter(chosen.values())).header.ceiling
    return _Measured(average_interval(strata, ceiling=ceiling), pooled, groups)


def _choose(quantity: Quantity, runs: list[Run]) -> dict[str, Run]:
    """The run for each dataset: a whole one before partial ones."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        h = run.header
        if (h.encoder, h.task, h.surrogate) == (quantity.encoder, quantity.task, quantity.surrogate) and (
            quantity.radius == 0 or quantity.radius in h.radii
        ):
            found.setdefault(h.dataset, []).append(run)
    if not found:
        raise _NotMeasured(f"there is no run for {quantity}")
    chosen = {}
    for dataset, several in found.items():
        candidates = [run for run in several if not run.header.partial] or several
        if len(candidates) > 1:
            places = " and ".join(str(run.directory) for run in candidates)
            raise UsageError(f"two runs for {quantity}, choose one: {places}")
        chosen[dataset] = candidates[0]
    return chosen


def _whole_scores(quantity: Quantity, run: Run) -> dict[str, float]:
    scores = scores_at(run, quantity.radius)
    if run.header.partial:
        raise _NotMeasured(f"the run for {quantity} is partial ({run.header.partial})")
    if len(scores) != run.header.n_samples:
        raise _NotMeasured(f"the run for {quantity} scored {len(scores)} of {run.header.n_samples} samples")
    if not quantity.beyond_clean:
        return scores
    clean = scores_at(run, 0)
    return {sample: score - clean[sample] for sample, score in scores.items()}
