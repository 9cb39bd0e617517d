"""A board of made-up entries, with a hostile one among them."""

from bench.board.entry import Card, read_entry, write_entry
from bench.board.pack import pack
from bench.board.site import write_board
from tests.bench.runs import make_run

HOSTILE = '<script>alert("entry")</script>'


def make_entries(folder, **header):
    """Four encoders on two boards, one of which a third party lowers; `header`: of their own runs."""
    found = []
    for number, (name, left) in enumerate({"clip": 1, "fare4": 3, "tecoa4": 2, HOSTILE: 0}.items()):
        scores = {0: [100.0] * 4, 2: [100.0] * 4, 4: [100.0] * left + [0.0] * (4 - left)}
        common = {"n_samples": 4, "encoder": name, "weights": {"encoder": str(number)}} | header
        checks = [{"name": "gradients", "ok": name != "tecoa4", "detail": ""}]
        runs = [make_run(folder / f"{number}-vqa", scores, checks=checks, **common)]
        if number < 2:
            runs.append(make_run(folder / f"{number}-pope", scores, task="pope", dataset="pope", **common))
        card = Card(name, "us", "synthetic scenes", 304, "MIT", "https://example.org/card")
        found.append(_placed(folder, f"{number}", runs, card))
    brought = make_run(
        folder / "brought",
        {0: [100.0] * 4, 4: [0.0, 100, 100, 100]},
        radii=(4.0,),
        n_samples=4,
        encoder="fare4",
        weights={"encoder": "1"},
        attack="brought",
    )
    return [*found, _placed(folder, "9-stronger", [brought], Card(submitter="them"))]


def _placed(folder, name, runs, card):
    path = folder / "entries" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_entry(path, pack(runs, card, path.parent))
    return read_entry(path)


def make_site(folder):
    """The first page of the board."""
    return write_board(make_entries(folder), folder / "site")
