"""Boards and their rows: entries that measure the same thing, ranked by what is left of them at worst."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.stats import Estimate, interval
from bench.board.entry import Claim, Placed
from bench.records import RunHeader
from bench.records.worst import eps_label, is_worse

Key = tuple[str, str, str, str, str, str, str]


@dataclass(frozen=True)
class Source:
    """One claim and the entry it is from."""

    placed: Placed
    number: int

    @property
    def claim(self) -> Claim:
        """The claim itself."""
        return self.placed.entry.claims[self.number]

    @property
    def header(self) -> RunHeader:
        """Its header."""
        return self.placed.headers[self.number]

    @property
    def submitter(self) -> str:
        """Who is given credit."""
        return self.placed.entry.card.submitter or self.placed.path.stem

    def left(self, radius: float) -> Mapping[str, float]:
        """Sample id -> what it is left with."""
        scores = self.claim.left.get(f"{radius:g}", ())
        return dict(zip(self.claim.samples, scores, strict=False))


@dataclass(frozen=True)
class Best:
    """The least that any accepted evidence leaves an encoder with at a radius.

    Attributes:
        estimate: with interval.
        credits: submitter -> samples that they were first to push so low.
    """

    estimate: Estimate
    credits: Mapping[str, int]


@dataclass(frozen=True)
class Row:
    """An encoder on a board.

    Attributes:
        own: the claim that stands for it: the first submitted.
        others: further evidence on the same weights, such as a third party's stronger attack.
        claimed: radius -> what the own claim says.
        best: radius -> the minimum over all evidence, sample by sample.
    """

    own: Source
    others: tuple[Source, ...]
    claimed: Mapping[float, Estimate]
    best: Mapping[float, Best]

    @property
    def title(self) -> str:
        """What the board calls the encoder, with its defence: that makes another victim of the same weights."""
        name, defence = self.own.placed.entry.card.title or self.own.header.encoder, self.own.header.defence
        return f"{name} behind {defence}" if defence else name

    @property
    def doubts(self) -> tuple[str, ...]:
        """Sanity checks that failed in the own claim's run."""
        return self.own.header.doubts


@dataclass(frozen=True)
class Board:
    """Encoders measured alike: one task, victim, dataset, metric, norm and protocol.

    Attributes:
        key: what they share.
        radii: at which any of them was attacked.
        rows: the best first.
    """

    key: Key
    radii: tuple[float, ...]
    rows: tuple[Row, ...]

    @property
    def header(self) -> RunHeader:
        """Of the first row."""
        return self.rows[0].own.header

    @property
    def title(self) -> str:
        """For a heading: "vqa on mini-vqa"."""
        return f"{self.header.task} on {self.header.dataset}"

    @property
    def conditions(self) -> str:
        """For a line below it."""
        h = self.header
        radii = ", ".join(eps_label(radius, h.norm) for radius in self.radii)
        return f"{h.metric}; {h.model or 'no vision-language model'}; {h.norm}, {radii}; protocol {h.protocol_name}"


def key_of(header: RunHeader) -> Key:
    """What two runs must share to be on one board; another protocol, norm or dataset is another board."""
    return (
        header.task,
        header.model or "",
        header.dataset_fingerprint,
        f"{header.metric} v{header.task_version}",
        header.norm,
        header.protocol_name,
        header.dataset,
    )


def boards(entries: Iterable[Placed]) -> list[Board]:
    """All boards that entries make, in the order of their tasks and datasets."""
    found: dict[Key, dict[tuple[str, str], list[Source]]] = {}
    for placed in entries:
        for number, header in enumerate(placed.headers):
            victim = header.weights.get("encoder", header.encoder), header.defence or ""
            found.setdefault(key_of(header), {}).setdefault(victim, []).append(Source(placed, number))
    made = [_board(key, list(encoders.values())) for key, encoders in found.items()]
    return sorted(made, key=lambda board: (board.header.task, board.header.dataset, board.key))


def _board(key: Key, encoders: Sequence[Sequence[Source]]) -> Board:
    radii = sorted({radius for sources in encoders for s in sources for radius in s.header.radii if radius > 0})
    rows = [_row(sources, radii) for sources in encoders]
    lower_is_better = rows[0].own.header.worst == "max"

    def merit(row: Row) -> tuple[float, ...]:
        values = [row.best[radius].estimate.value if radius in row.best else -1.0 for radius in (*reversed(radii), 0.0)]
        return tuple(-value if lower_is_better else value for value in values)

    return Board(key, tuple(radii), tuple(sorted(rows, key=merit, reverse=True)))


def _row(sources: Sequence[Source], radii: Sequence[float]) -> Row:
    own = next((s for s in sources if s.header.surrogate is None), sources[0])
    claimed = {s.radius: Estimate(s.value, s.low, s.high, s.n) for s in own.claim.scores}
    best = {radius: found for radius in (0.0, *radii) if (found := _best(own, sources, radius)) is not None}
    return Row(own, tuple(s for s in sources if s is not own), claimed, best)


def _best(own: Source, sources: Sequence[Source], radius: float) -> Best | None:
    """The minimum at a radius over all evidence there and, for a ball holds the smaller ones, below."""
    groups = dict(zip(own.claim.samples, own.claim.groups, strict=True))
    worst = own.header.worst
    left: dict[str, tuple[float, str]] = {}
    cumulative = own.header.cumulative_radii
    for source in (own, *(s for s in sources if s is not own)):
        smaller = [r for r in (0.0, *source.header.radii) if r == radius or (cumulative and 0 < r < radius)]
        for at in smaller if radius else [0.0]:
            for sample, score in source.left(at).items():
                if sample in groups and (sample not in left or is_worse(worst, score, left[sample][0])):
                    left[sample] = score, source.submitter
    if len(left) < len(groups) or not left:
        return None
    scores = {sample: score for sample, (score, _) in left.items()}
    return Best(
        interval(scores, groups, ceiling=own.header.ceiling),
        dict(Counter(who for _, who in left.values()).most_common()),
    )
